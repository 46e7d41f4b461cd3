import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Address, type Hex, keccak256, toHex, zeroAddress } from 'viem';
import { type BareAnvil, startBareAnvil } from '../../test/bare-anvil.ts';
import type { MillraceError } from '../errors.ts';
import { silentLogger } from '../log.ts';
import { listForeignModules } from './build.ts';
import { connectChain, createChainTransport } from './client.ts';
import { abis, type ModuleName } from './contracts.generated.ts';
import { type DeployOptions, deployNetwork } from './deploy.ts';
import { type Manifest, manifestId, readManifest, signManifest } from './manifest.ts';
import { listPowers } from './powers.ts';
import { loadProfile, PROFILE_NAMES } from './profile.ts';
import { developmentSigner } from './signer.ts';
import { startChainSupervisor } from './supervisor.ts';
import { surveyChain } from './survey.ts';

const deployer = developmentSigner(0, 'dev');
const COMPUTE_LAUNCH = [{ to: deployer.address, amount: 500_000_000n * 10n ** 18n }];
const SLASHERS = [
  'storageMarket',
  'checkers',
  'orderBook',
  'jury',
  'receiptCourt',
  'computeMarket',
  'leaseProbers',
  'computeHealth',
  'auditors',
  'computeJobs',
] as const;
let anvil: BareAnvil;
before(async () => {
  anvil = await startBareAnvil();
});
after(() => anvil.stop());

function deployOptions(rpcUrl: string, more: Partial<DeployOptions> = {}): DeployOptions {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-deploy-'));
  const manifestPath = join(folder, 'network.json');
  return { rpcUrl, name: 'test', profile: 'dev', signer: deployer, folder, manifestPath, embedded: true, log: silentLogger, ...more };
}

test('a network on the embedded chain is complete, sealed, and no key holds a power over it', async () => {
  const accounts = [{ address: deployer.address, balance: 10n ** 24n }];
  const supervisor = await startChainSupervisor({ folder: mkdtempSync(join(tmpdir(), 'millrace-chain-')), accounts });
  try {
    const options = deployOptions(supervisor.rpcUrl);
    const manifest = await deployNetwork(options);
    const modules = Object.keys(abis) as ModuleName[];
    assert.deepEqual(Object.keys(manifest.modules).sort(), modules.sort());
    assert.equal(manifest.randomness.source, 'trusted-operator');
    assert.equal(manifest.notSecure, true);
    assert.deepEqual(manifest.tokens.network, {
      address: manifest.modules.networkToken?.address,
      name: 'Millrace Development Token',
      symbol: 'devMILL',
      decimals: 18,
    });
    assert.equal(manifest.tokens.stable?.decimals, 6);
    const client = await connectChain({ rpcUrl: supervisor.rpcUrl, manifest: readManifest(options.manifestPath) });
    for (const name of modules) {
      if (name !== 'registry') assert.equal(await client.read('registry', 'get', [toHex(name, { size: 32 })]), client.address(name));
    }
    assert.equal(await client.read('registry', 'isSealed'), true);
    assert.deepEqual(
      await client.read('registry', 'slashers'),
      SLASHERS.map((name) => client.address(name)),
    );
    assert.equal((await client.read('possession', 'config')).period, 300);
    assert.equal(await client.read('networkToken', 'balanceOf', [deployer.address]), 100_000_000n * 10n ** 18n);

    assert.deepEqual(await listForeignModules(client), []);
    const powers = await listPowers(client);
    const held = Object.fromEntries(powers.map(({ power, holderName, holderKind }) => [power, holderName ?? holderKind]));
    assert.deepEqual(held, {
      'registry.set, registry.retire': 'timelock',
      'registry.seal': 'nobody',
      'parameters.set': 'timelock',
      'timelock.admin': 'timelock',
      'timelock.schedule': 'governor',
      'timelock.cancel': 'governor',
      'timelock.execute': 'anyone',
      'governor rules': 'timelock',
      'networkToken.mint': 'emission',
      'emission.mint (what the schedule says)': 'anyone',
      'stakeVault.lock, stakeVault.slash': 'computeJobs', // the last of them, see above
      'receiptCourt.rule': 'jury',
      'possession.insert, possession.remove': 'storageMarket',
      'storageMarket.open, storageMarket.extend': 'dealDesk',
      'storageMarket.open': 'orderBook',
      'inferenceToken.mint': 'subnetEmission',
      'subnetEmission.issue (what the schedule says)': 'anyone',
      'subnetEmission.setShare': 'emissionShares',
      'subnetEmission.assign, emissionShares.burntFor, emissionShares.dissolved': 'subnets',
      'subnetEmission.collect, subnets.record': 'subnetEpochs',
      'subnets.revokePermit': 'weightsBoard',
      'subnets.create (for its lock)': 'anyone',
      'backerIncome.addToken': 'timelock',
      'computeToken.mint': 'computeEmission',
      'computeEmission.mint (what the schedule says)': 'anyone',
      'computeMarket.stateOfProbers': 'leaseProbers',
      'computeJobs.openCase, computeJobs.closeCase (disputes)': 'jobDisputes',
      'computeJobs.openCase, computeJobs.closeCase (demands)': 'stateDemands',
      'jobDisputes.rule': 'jury',
      'buybackAuction.open, buybackAuction.burnNativeFees': 'anyone',
      'stableToken.mint (development)': 'anyone',
      'randomness of every block': 'trusted-operator',
    });
  } finally {
    await supervisor.stop();
  }
});

test('a deployment that is repeated changes nothing, and one in the same folder with other options is refused', async () => {
  const options = deployOptions(anvil.rpcUrl);
  const manifest = await deployNetwork(options);
  const nonce = await anvil.public.getTransactionCount({ address: deployer.address });
  assert.deepEqual(await deployNetwork(options), manifest);
  await requireConflicts(options);
  rmSync(options.manifestPath);
  await requireConflicts(options);
  assert.equal(manifestId(await deployNetwork(options)), manifestId(manifest));
  assert.equal(await anvil.public.getTransactionCount({ address: deployer.address }), nonce);
  rmSync(options.manifestPath);
  await assert.rejects(deployNetwork({ ...options, name: 'other' }), { code: 'deploy-conflict' });
  writeFileSync(join(options.folder, 'deploy.json'), '{');
  await assert.rejects(deployNetwork(options), { code: 'deploy-plan-broken' });
});

/** Each option that differs from what is there, finished or begun, is refused by its name. */
async function requireConflicts(options: DeployOptions): Promise<void> {
  const allocations = [{ to: zeroAddress, amount: 1n }];
  const cases: [string, Partial<DeployOptions>][] = [
    ['--network', { name: 'other' }],
    ['--profile', { profile: 'laptop', allocations, computeLaunch: COMPUTE_LAUNCH }],
    ['--jury-votes', { juryVotes: 5 }],
    ['--beacon', { beacon: '0x4e59b44847b379578588920cA78FbF26c0B4956C' }],
    ['--allocations', { allocations }],
    ['--compute-allocations', { computeLaunch: COMPUTE_LAUNCH.map(({ amount }) => ({ to: zeroAddress, amount })) }],
  ];
  for (const [option, changes] of cases) {
    await assert.rejects(deployNetwork({ ...options, ...changes }), (error: MillraceError) => {
      assert.deepEqual([error.code, error.actor, error.values.option], ['deploy-conflict', 'caller', option], error.message);
      return true;
    });
  }
}

test('every profile is accepted by the contracts, and its withdrawal delay covers every exposure', async () => {
  const existing = (await deployNetwork(deployOptions(anvil.rpcUrl))).modules.stableToken?.address;
  for (const name of PROFILE_NAMES.filter((profile) => profile !== 'dev')) {
    const profile = await loadProfile(name);
    const more: Partial<DeployOptions> = profile.stableToken === 'existing' ? { stableToken: existing } : {};
    if (profile.allocations.length === 0) more.allocations = [{ to: deployer.address, amount: 10n ** 24n }];
    if (profile.computeToken.launch.length === 0) more.computeLaunch = COMPUTE_LAUNCH;
    const options = deployOptions(anvil.rpcUrl, { profile: name, ...more });
    const manifest = await deployNetwork(options);
    assert.deepEqual(await deployNetwork(options), manifest);
    await assert.rejects(deployNetwork({ ...options, stableToken: zeroAddress }), { code: 'deploy-conflict', actor: 'caller' });
    const client = await connectChain({ rpcUrl: anvil.rpcUrl, manifest });
    await client.read('registry', 'checkExposure');
    const delay = await client.read('stakeVault', 'withdrawalDelaySeconds');
    assert.equal(delay, profile.parameters['vault.withdrawalDelay']?.value);
    for (const slasher of SLASHERS) {
      const exposure = await client.read(slasher, 'exposureSeconds');
      assert.ok(
        (profile.parameters['vault.withdrawalDelay']?.min ?? 0n) >= exposure,
        `${name}: a vote could lower the delay below the ${exposure} of ${slasher}`,
      );
    }
    assert.ok(profile.governor.timelockDelaySeconds < delay, `${name}: stakers could not leave before a decision takes effect`);
  }
  await assert.rejects(deployNetwork(deployOptions(anvil.rpcUrl, { profile: 'production' })), { code: 'allocations-missing' });
  const allocations = [{ to: deployer.address, amount: 1n }];
  await assert.rejects(deployNetwork(deployOptions(anvil.rpcUrl, { profile: 'production', allocations })), { code: 'allocations-missing' });
  const computeLaunch = COMPUTE_LAUNCH;
  await assert.rejects(deployNetwork(deployOptions(anvil.rpcUrl, { profile: 'production', allocations, computeLaunch })), {
    code: 'stable-token-missing',
  });
  await assert.rejects(deployNetwork(deployOptions(anvil.rpcUrl, { profile: '../../etc' })), { code: 'unknown-profile' });
});

test('a deployment that is killed again and again ends with one network and creates nothing twice', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-deploy-'));
  const own = await startBareAnvil();
  try {
    const program = fileURLToPath(new URL('../../test/deploy-child.ts', import.meta.url));
    const created = new Map<string, string>();
    let kills = 0;
    for (;;) {
      const child = spawn(process.execPath, [program, own.rpcUrl, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
      let lines = 0;
      child.stdout.on('data', (chunk: Buffer) => {
        for (const line of chunk.toString().trim().split('\n')) {
          const { event, name, address } = JSON.parse(line);
          if (event !== 'contract-created') continue;
          assert.equal(created.get(name) ?? address, address, `${name} was created twice`);
          created.set(name, address);
          lines += 1;
        }
        if (kills < 4 && lines >= 2) child.kill('SIGKILL');
      });
      if ((await new Promise((resolve) => child.once('exit', resolve))) === 0) break;
      kills += 1;
    }
    assert.equal(kills, 4);
    const manifest = readManifest(join(folder, 'network.json'));
    // A contract each but for the five that come out of others, a name each but the registry's, one seal.
    const transactions = 2 * Object.keys(manifest.modules).length - 5;
    assert.equal(await own.public.getTransactionCount({ address: deployer.address }), transactions);
    await connectChain({ rpcUrl: own.rpcUrl, manifest });
  } finally {
    await own.stop();
  }
});

test('a node refuses a chain that is not the one of its manifest', async () => {
  const manifest = await deployNetwork(deployOptions(anvil.rpcUrl));
  const { signature: _, ...plain } = manifest;
  const change = async (changes: Partial<Manifest>) =>
    connectChain({ rpcUrl: anvil.rpcUrl, manifest: await signManifest({ ...plain, ...changes }, deployer) });
  await change({});
  await assert.rejects(change({ chainId: 1 }), { code: 'chain-id-mismatch', values: { got: 31_337, expected: 1, network: 'test' } });
  await assert.rejects(change({ genesisHash: `0x${'12'.repeat(32)}` }), { code: 'wrong-network' });
  const rails = plain.modules.rails as Manifest['modules'][string];
  await assert.rejects(change({ modules: { ...plain.modules, rails: { ...rails, codeHash: keccak256('0x01') } } }), {
    code: 'wrong-network',
  });
  await assert.rejects(change({ modules: { ...plain.modules, rails: { ...rails, address: zeroAddress } } }), { code: 'wrong-network' });
  await assert.rejects(connectChain({ rpcUrl: 'http://127.0.0.1:1', manifest }), { code: 'chain-unreachable' });
  await assert.rejects(connectChain({ rpcUrl: 'ftp://127.0.0.1', manifest }), { code: 'bad-rpc-url' });
});

test('a deployer without funds gets a typed error', async () => {
  const own = await startBareAnvil(['--balance', '0']);
  try {
    await assert.rejects(deployNetwork(deployOptions(own.rpcUrl)), { code: 'no-funds' });
  } finally {
    await own.stop();
  }
});

test('a bare anvil is refused, because its prevrandao can be foretold, unless a beacon is declared', async () => {
  await assert.rejects(deployNetwork(deployOptions(anvil.rpcUrl, { embedded: false })), { code: 'randomness-unsafe' });
  await assert.rejects(deployNetwork(deployOptions(anvil.rpcUrl, { embedded: false, beacon: deployer.address })), {
    code: 'beacon-missing',
  });
  const beacon = '0x4e59b44847b379578588920cA78FbF26c0B4956C';
  const manifest = await deployNetwork(deployOptions(anvil.rpcUrl, { embedded: false, beacon, confirmations: 1 }));
  assert.deepEqual(manifest.randomness, { source: 'beacon', beacon, history: 'eip-2935' });
});

test('a chain is judged by its id and by the headers it has', async () => {
  const profile = await loadProfile('laptop');
  const good = (number: number) => keccak256(toHex(number + 1));
  const survey = async (changes: Partial<StandIn>) => {
    const chain = await startStandIn({ chainId: 560_048, blocks: 40, mixHash: good, history: true, blockSeconds: 12, ...changes });
    try {
      return await surveyChain(chain.client, profile, {});
    } finally {
      chain.stop();
    }
  };
  assert.deepEqual((await survey({})).randomness, { source: 'prev-randao', beacon: null, history: 'eip-2935' });
  assert.equal((await survey({ history: false })).randomness.history, 'blockhash');
  const unsafe: Partial<StandIn>[] = [
    { chainId: 8453 },
    { chainId: 42_161 },
    { mixHash: () => `0x${'00'.repeat(32)}` },
    { mixHash: () => `0x${'00'.repeat(31)}01` },
    { mixHash: () => good(7) },
    { mixHash: (number) => good(number >> 2) },
    { blocks: 3 },
  ];
  for (const changes of unsafe) await assert.rejects(survey(changes), { code: 'randomness-unsafe' });
  await assert.rejects(survey({ history: false, blockSeconds: 2 }), { code: 'history-too-short' });
  const mainnet = await startStandIn({ chainId: 1, blocks: 40, mixHash: good, history: true, blockSeconds: 12 });
  await assert.rejects(surveyChain(mainnet.client, await loadProfile('dev'), {}), { code: 'profile-not-secure' });
  mainnet.stop();
});

test('every profile says what it is, and only dev is not secure', async () => {
  for (const name of PROFILE_NAMES) {
    const profile = await loadProfile(name);
    assert.equal(profile.name, name);
    assert.equal(profile.notSecure, name === 'dev');
    assert.equal(profile.summary.includes('NOT SECURE'), name === 'dev');
    // A job's provider and who accuses it do not judge: a jury must be found beside both.
    assert.equal(profile.jobRules.jurorsMin, profile.jury.votes + 1);
    for (const [key, { value, min, max, maxStep }] of Object.entries(profile.parameters)) {
      assert.ok(min <= value && value <= max && maxStep > 0n, `${name} ${key}`);
    }
  }
});

interface StandIn {
  chainId: number;
  blocks: number;
  mixHash(number: number): Hex;
  history: boolean;
  blockSeconds: number;
}

/** Answers the few questions of a survey as a chain with the given headers would; such chains cannot be run here. */
async function startStandIn({ chainId, blocks, mixHash, history, blockSeconds }: StandIn) {
  const header = (number: number) => ({
    number: toHex(number),
    hash: keccak256(toHex(number)),
    timestamp: toHex(1_700_000_000 + number * blockSeconds),
    mixHash: mixHash(number),
  });
  const answers: Record<string, (params: string[]) => unknown> = {
    eth_chainId: () => toHex(chainId),
    eth_blockNumber: () => toHex(blocks),
    eth_getBlockByNumber: ([tag]) => header(Number(tag)),
    eth_getCode: ([address]) => (history && (address as Address).toLowerCase().startsWith('0x0000f908') ? '0x60' : '0x'),
    web3_clientVersion: () => 'stand-in/1',
  };
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    const { id, method, params } = JSON.parse(body);
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ jsonrpc: '2.0', id, result: answers[method]?.(params) ?? null }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));

  return {
    client: createChainTransport(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
    stop: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
