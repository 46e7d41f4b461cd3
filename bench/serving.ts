/**
 * Serving: requests per CPU-second through the gateway with key, routing, payment by voucher and receipt, beside `@portkey-ai/gateway` from npm
 * in front of the same backend; added latency, 500 streams at once, memory. Every part is a process of its own, so that its CPU seconds and
 * its memory are its own. Portkey is installed into a temporary folder; where the registry is out of reach, that part is left out and said so.
 * (As published, 1.15.2 fails on every stream with `TypeError: immutable`, on Node 20 and 24: `parts/portkey-headers.ts` mends that.)
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const PORTKEY = '@portkey-ai/gateway@1.15.2';
const REQUESTS = Number(process.env.MILLRACE_BENCH_REQUESTS ?? 4000);
const ROUNDS = 5;
const WARM_UP = 600;
const AT_ONCE = 32;
const LATENCY_REQUESTS = 500;
const STREAMS = 500;
/** Linux counts processor time in hundredths of a second for every architecture (USER_HZ). */
const TICKS_PER_SECOND = 100;

interface Part {
  pid: number;
  child: ChildProcess;
  url: string;
  key?: string;
  manifest?: string;
}

interface Target {
  name: string;
  url: string;
  headers: Record<string, string>;
  /** Whose CPU seconds count, by name. */
  parts: Record<string, number>;
}

const root = mkdtempSync(join(tmpdir(), 'millrace-bench-serving-'));
const children: ChildProcess[] = [];
const agent = new http.Agent({ keepAlive: true, maxSockets: 2048 });

async function startPart(role: string, argument: object = {}): Promise<Part> {
  const child = spawn(
    process.execPath,
    [
      join(import.meta.dirname, 'parts', 'serving-part.ts'),
      role,
      JSON.stringify({ root, ...argument }, (name, value) => (name === 'child' ? undefined : value)),
    ],
    {
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  );
  children.push(child);
  const [line] = (await once(createInterface({ input: child.stdout as NodeJS.ReadableStream }), 'line')) as [string];
  return { pid: child.pid as number, child, ...(JSON.parse(line) as Pick<Part, 'url' | 'key' | 'manifest'>) };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

async function startPortkey(): Promise<Part | string> {
  const folder = join(root, 'portkey');
  try {
    execFileSync('npm', ['install', '--prefix', folder, '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error', PORTKEY], {
      stdio: 'pipe',
      timeout: 180_000,
    });
  } catch (error) {
    return `${PORTKEY} could not be installed: ${(error as Error).message.split('\n')[0]}`;
  }
  const port = await freePort();
  const entry = join(folder, 'node_modules', '@portkey-ai', 'gateway', 'build', 'start-server.js');
  const child = spawn(
    process.execPath,
    ['--import', join(import.meta.dirname, 'parts', 'portkey-headers.ts'), entry, `--port=${port}`, '--headless'],
    {
      cwd: folder,
      stdio: 'ignore',
      env: { ...process.env, NODE_ENV: 'production' },
    },
  );
  children.push(child);
  const url = `http://127.0.0.1:${port}`;
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const isUp = await fetch(url, { signal: AbortSignal.timeout(1000) }).then(
      () => true,
      () => false,
    );
    if (isUp) return { pid: child.pid as number, child, url: `${url}/v1` };
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return `${PORTKEY} did not start`;
}

function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

function memoryMib(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

interface Answered {
  ms: number;
  firstMs: number;
  bytes: number;
}

function ask(target: Target, body: string): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const startedMs = performance.now();
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), ...target.headers };
    const request = http.request(`${target.url}/chat/completions`, { method: 'POST', agent, headers }, (answer) => {
      let bytes = 0;
      let firstMs = 0;
      let said = '';
      answer.on('data', (chunk: Buffer) => {
        if (answer.statusCode !== 200) said += chunk.toString().slice(0, 300);
        if (firstMs === 0) firstMs = performance.now() - startedMs;
        bytes += chunk.length;
      });
      answer.on('error', reject);
      answer.on('end', () => {
        if (answer.statusCode !== 200) return reject(new TypeError(`${target.name}: status ${answer.statusCode} ${said}`));
        resolve({ ms: performance.now() - startedMs, firstMs, bytes });
      });
    });
    request.on('error', reject);
    request.end(body);
  });
}

const question = (index: number, stream: boolean) =>
  JSON.stringify({
    model: 'mill-chat',
    messages: [
      {
        role: 'system',
        content: 'You answer in one short sentence, and you never speak of anything but water mills and what belongs to them.',
      },
      { role: 'user', content: `Question ${index}: why does the wheel turn when the sluice is open, and who closes it at night?` },
    ],
    max_tokens: 64,
    ...(stream ? { stream: true } : {}),
  });

async function askMany(target: Target, count: number, atOnce: number, stream: boolean): Promise<Answered[]> {
  const answers: Answered[] = [];
  let next = 0;
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (next < count) {
        next += 1;
        answers.push(await ask(target, question(next, stream)));
      }
    }),
  );
  return answers;
}

function percentile(values: number[], share: number): number {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] as number;
}

function print(name: string, text: string): void {
  process.stdout.write(`${name.padEnd(52)} ${text}\n`);
}

/**
 * Requests per CPU-second of each process between caller and backend, and of all of them together. The targets take turns, so that whatever
 * else the machine does falls on all of them.
 */
async function measureThroughput(targets: readonly Target[], stream: boolean): Promise<void> {
  const used = new Map<string, number>();
  let seconds: Record<string, number> = {};
  for (const target of targets) await askMany(target, WARM_UP, AT_ONCE, stream);
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const target of targets) {
      const before = Object.entries(target.parts).map(([name, pid]) => [`${target.name} ${name}`, pid, cpuSeconds(pid)] as const);
      const startedMs = performance.now();
      await askMany(target, REQUESTS / ROUNDS, AT_ONCE, stream);
      seconds = { ...seconds, [target.name]: (seconds[target.name] ?? 0) + (performance.now() - startedMs) / 1000 };
      for (const [name, pid, start] of before) used.set(name, (used.get(name) ?? 0) + cpuSeconds(pid) - start);
    }
  }
  for (const { name, parts } of targets) {
    const costs = Object.keys(parts).map((part) => [part, used.get(`${name} ${part}`) as number] as const);
    const all = costs.reduce((sum, [, cpu]) => sum + cpu, 0);
    const shown = costs.map(([part, cpu]) => `${part} ${(REQUESTS / cpu).toFixed(0)}`).join(', ');
    const together = costs.length > 1 ? `, together ${(REQUESTS / all).toFixed(0)}` : '';
    const rate = (REQUESTS / (seconds[name] as number)).toFixed(0);
    print(`${name}, ${stream ? 'streams' : 'whole answers'}`, `${shown}${together} per CPU-second (${rate} per second)`);
  }
}

async function measureLatency(target: Target, bare: Target): Promise<void> {
  const direct: number[] = [];
  const through: number[] = [];
  // By turns, so that whatever else the machine does falls on both.
  for (let index = 0; index < LATENCY_REQUESTS; index += 1) {
    direct.push((await ask(bare, question(index, false))).ms);
    through.push((await ask(target, question(index, false))).ms);
  }
  const added = [0.5, 0.99].map((share) => (percentile(through, share) - percentile(direct, share)).toFixed(2));
  print(
    `${target.name}, added latency`,
    `p50 ${added[0]} ms, p99 ${added[1]} ms (backend alone: p50 ${percentile(direct, 0.5).toFixed(2)} ms)`,
  );
}

async function measureStreams(target: Target): Promise<void> {
  // The first request opens a channel on chain: once for a miner, not for each stream.
  await askMany(target, 4, 2, true);
  const before = Object.entries(target.parts).map(([name, pid]) => [name, pid, cpuSeconds(pid)] as const);
  let peak: Record<string, number> = {};
  const watch = setInterval(() => {
    peak = Object.fromEntries(Object.entries(target.parts).map(([name, pid]) => [name, Math.max(peak[name] ?? 0, memoryMib(pid))]));
  }, 50);
  const startedMs = performance.now();
  const asked = Promise.all(Array.from({ length: STREAMS }, (_, index) => ask(target, question(index, true))));
  const answers = await asked.finally(() => clearInterval(watch));
  const ms = performance.now() - startedMs;
  const firsts = answers.map(({ firstMs }) => firstMs);
  const shown = before
    .map(([name, pid, start]) => `${name} ${(cpuSeconds(pid) - start).toFixed(2)} CPU-s, ${(peak[name] ?? 0).toFixed(0)} MiB`)
    .join('; ');
  print(
    `${target.name}, ${STREAMS} streams at once`,
    `first byte p50 ${percentile(firsts, 0.5).toFixed(0)} ms, p99 ${percentile(firsts, 0.99).toFixed(0)} ms, all in ${(ms / 1000).toFixed(1)} s; ${shown}`,
  );
}

try {
  const backend = await startPart('backend');
  const slow = await startPart('backend', { words: 40, wordMs: 50 });
  const chain = await startPart('chain');
  const network = { rpcUrl: chain.url, manifest: chain.manifest };
  const miner = await startPart('miner', { ...network, backend: backend.url, index: 0 });
  const slowMiner = await startPart('miner', { ...network, backend: slow.url, index: 1, isFree: true });
  // Miners that have earned nothing yet, and are paid by voucher.
  const paidMiners: Part[] = [];
  for (const index of [2, 3, 4]) paidMiners.push(await startPart('miner', { ...network, backend: slow.url, index }));
  const gateway = await startPart('gateway', { ...network, miners: [miner], name: 'tls' });
  const plainGateway = await startPart('gateway', {
    ...network,
    miners: [{ ...miner, url: miner.url.replace('https:', 'http:'), transportKey: '' }],
    name: 'plain',
  });
  const slowGateway = await startPart('gateway', { ...network, miners: [slowMiner], name: 'slow' });
  const paidGateway = await startPart('gateway', { ...network, miners: paidMiners, name: 'paid' });
  const portkey = await startPortkey();
  const keyed = (part: Part): Record<string, string> => ({ authorization: `Bearer ${part.key}` });
  const portkeyHeaders = (url: string) => ({ 'x-portkey-provider': 'openai', 'x-portkey-custom-host': url, authorization: 'Bearer none' });
  const bare: Target = { name: 'backend alone', url: backend.url, headers: {}, parts: { backend: backend.pid } };
  const ours: Target = {
    name: 'millrace, pinned TLS to the miner',
    url: `${gateway.url}/v1`,
    headers: keyed(gateway),
    parts: { gateway: gateway.pid, miner: miner.pid },
  };
  // Portkey reaches the backend over plain HTTP: the same way for the same way.
  const plain: Target = {
    ...ours,
    name: 'millrace, plain HTTP to the miner',
    url: `${plainGateway.url}/v1`,
    headers: keyed(plainGateway),
    parts: { gateway: plainGateway.pid, miner: miner.pid },
  };
  const targets = [ours, plain];
  if (typeof portkey === 'string') print('portkey left out', portkey);
  else targets.push({ name: PORTKEY, url: portkey.url, headers: portkeyHeaders(backend.url), parts: { gateway: portkey.pid } });
  for (const stream of [false, true]) await measureThroughput(targets, stream);
  for (const target of targets) await measureLatency(target, bare);
  await measureStreams({
    ...ours,
    name: 'millrace, pinned TLS to a miner without price',
    url: `${slowGateway.url}/v1`,
    headers: keyed(slowGateway),
    parts: { gateway: slowGateway.pid, miner: slowMiner.pid },
  });
  await measureStreams({
    ...ours,
    name: 'millrace, pinned TLS to three paid miners',
    url: `${paidGateway.url}/v1`,
    headers: keyed(paidGateway),
    parts: { gateway: paidGateway.pid, ...Object.fromEntries(paidMiners.map(({ pid }, index) => [`miner ${index + 1}`, pid])) },
  });
  if (typeof portkey !== 'string') await measureStreams({ ...(targets[2] as Target), headers: portkeyHeaders(slow.url) });
  gateway.child.stdin?.end();
  const [line] = (await once(createInterface({ input: gateway.child.stdout as NodeJS.ReadableStream }), 'line')) as [string];
  print('millrace, receipts kept and money paid', line);
} finally {
  for (const child of children.reverse()) child.kill('SIGTERM');
  await new Promise((resolve) => setTimeout(resolve, 1500));
  rmSync(root, { recursive: true, force: true, maxRetries: 5 });
}
process.exit(0);
