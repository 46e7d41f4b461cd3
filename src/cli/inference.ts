import { join } from 'node:path';
import { MillraceError } from '../errors.ts';
import { type InferenceServer, minersOfNetwork, openReplayCourier, startInferenceServer } from '../gateway/index.ts';
import { createInferenceReceipts, inferenceReceiptDomain, REPLAY_HEADER, type ReportState, verifyReceipt } from '../inference/index.ts';
import { createPayer } from '../token/index.ts';
import { formatAmount, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { offenceText, openOwnCourt } from './own-court.ts';
import { openSender } from './sending.ts';

/** A gateway of this command, paid from the wallet of this data folder. */
export interface OwnGateway {
  /** `http://127.0.0.1:port`, open to this machine while the command runs. */
  url: string;
  server: InferenceServer;
  /** One line about an answer, for people. */
  told(account: AnswerAccount): string;
  /**
   * What an answer cost and who vouches for it, checked. What came that convicts who signed it is told first, and reported to the court.
   * @throws bad-receipt, receipt-mismatch, no-receipt
   */
  account(encoded: string | undefined | null): Promise<AnswerAccount>;
  /** Sends one request. @throws the error that the gateway answered with */
  send(path: string, init: { body: NonNullable<RequestInit['body']>; type: string }): Promise<Response>;
}

/** What an answer cost and who vouches for it. Money in base units. */
export interface AnswerAccount {
  receiptId: string;
  model: string;
  modelRoot: string;
  operatorId: bigint;
  miner: string;
  evidence: string;
  /** What stands behind that answer: a validator may repeat this very request, or it is checked by validators' own probes alone. */
  check: 'replay allowed' | 'probes only';
  profile: string;
  inputUnits: bigint;
  outputUnits: bigint;
  unit: string;
  price: bigint;
  ttftMs: number;
  receipt: string;
  /** Receipts that convict who signed them, and what came of reporting them. */
  offences: readonly ReportState[];
}

/** A channel with a miner is filled for at most so many requests ahead: what is not used can be had back after the channel's delay. */
const DEPOSIT_REQUESTS = 4n;
const STOP_MS = 500;
/** How long a command waits for validators to take what it shows them. */
const SHOW_MS = 5_000;

/**
 * Runs `work` beside a gateway to the network's miners, which pays them by vouchers from this wallet. With `replay` the requests and answers are
 * shown to the validators that judge the miner, who may repeat them; paid requests are counted either way.
 * @throws no-network, not-running, key-in-use, no-miner, and what the work throws
 */
export async function withOwnGateway<T>(
  context: CommandContext,
  { replay = false }: { replay?: boolean },
  work: (gateway: OwnGateway) => Promise<T>,
): Promise<T> {
  const { client, manifest, signer, sender, folder, log } = await openSender(context);
  const closing: (() => Promise<void> | void)[] = [() => sender.close()];
  try {
    const channels = join(folder.client, 'channels');
    const payer = await createPayer({ client, signer, sender, folder: channels, depositRequests: DEPOSIT_REQUESTS });
    closing.push(() => payer.close());
    const courier = openReplayCourier({ client, payer, signer, folder: folder.client, everyMs: 0, log });
    closing.push(() => courier.close());
    const domain = inferenceReceiptDomain(client);
    const inference = join(folder.client, 'inference');
    const court = openOwnCourt({ client, sender, folder: inference, signal: context.signal, log });
    const server = await startInferenceServer({
      folder: inference,
      port: 0,
      domain,
      miners: () => minersOfNetwork(client),
      payer,
      token: client.address('networkToken'),
      now: () => client.now(),
      isOpen: true,
      onSample: courier.onSample,
      onPaid: courier.onPaid,
      onReceipt: (seen) => court?.onReceipt(seen),
      log,
    });
    closing.push(() => server.stop(STOP_MS));
    const unit = manifest.tokens.network?.symbol ?? 'tokens';
    const bring = async () => {
      const offences = (await court?.bring(server.receipts)) ?? [];
      for (const offence of offences) context.output.note(offenceText(offence, unit));
      return offences;
    };
    const url = `http://${server.host}:${server.port}`;
    const codec = createInferenceReceipts(domain);
    const done = await work({
      url,
      server,
      told: (account) => accountText(account, unit),
      async account(encoded) {
        const offences = await bring();
        const { receipt } = verifyReceipt(codec, encoded ?? throwNoReceipt(offences), {});
        return accountOf(receipt, { encoded: encoded as string, offences });
      },
      send: (path, { body, type }) => send(`${url}${path}`, { body, type, replay, signal: context.signal }),
    });
    if (replay) {
      const { validators, accepted } = await courier.flush(AbortSignal.any([context.signal, AbortSignal.timeout(SHOW_MS)]));
      context.output.note(accepted === 0 ? 'No validator took the request.' : `Shown to ${validators} validators, who may repeat it.`);
    }
    return done;
  } finally {
    for (const close of closing.reverse()) await close();
  }
}

function accountText(account: AnswerAccount, symbol: string): string {
  const seconds = account.ttftMs < 1000 ? `${Math.round(account.ttftMs)} ms` : `${(account.ttftMs / 1000).toFixed(1)} s`;
  const cost = `${formatAmount(account.price, TOKEN_DECIMALS)} ${symbol}`;
  const made = account.outputUnits > 0n ? `${account.outputUnits} ${account.unit} out, ` : '';
  return `${account.model} at operator ${account.operatorId}: ${cost}, ${made}first after ${seconds}; evidence: ${account.evidence} (${account.check}); receipt ${account.receiptId.slice(0, 18)}…`;
}

async function send(
  url: string,
  init: { body: NonNullable<RequestInit['body']>; type: string; replay: boolean; signal: AbortSignal },
): Promise<Response> {
  const headers = { 'content-type': init.type, ...(init.replay ? { [REPLAY_HEADER]: 'allow' } : {}) };
  const response = await fetch(url, { method: 'POST', body: init.body, headers, signal: init.signal });
  if (response.ok) return response;
  const text = await response.text();
  throw failureOf(response.status, text);
}

interface ErrorAnswer {
  error?: { message?: string; code?: string; millrace?: { actor?: string; hint?: string; values?: Record<string, unknown> } };
}

/** The gateway's error, as the command's own. */
function failureOf(status: number, text: string): MillraceError {
  let error: ErrorAnswer['error'];
  try {
    ({ error } = JSON.parse(text) as ErrorAnswer);
  } catch {
    error = undefined;
  }
  const { actor, hint, values = {} } = error?.millrace ?? {};
  const known = actor === 'caller' || actor === 'chain' || actor === 'host' || actor === 'bug' ? actor : 'peer';
  return new MillraceError('request-not-answered', {
    actor: status === 404 || status === 400 ? 'caller' : known,
    message: error?.message ?? `The gateway answered ${status}`,
    values: { ...values, status, reason: error?.code ?? '' },
    hint: hint ?? 'See which models are served: millrace models.',
  });
}

function throwNoReceipt(offences: readonly ReportState[]): never {
  throw new MillraceError('no-receipt', {
    actor: 'peer',
    message: 'The answer came without a receipt that is good: nothing says who made it and what it cost',
    values: {
      offences: offences.map(({ operatorId, offence, state, evidence }) => `operator ${operatorId}: ${offence}, ${state}, ${evidence}`),
    },
    hint: 'Ask again; the miner that did this is ranked lower.',
  });
}

function accountOf(
  receipt: ReturnType<typeof verifyReceipt>['receipt'],
  { encoded, offences }: { encoded: string; offences: readonly ReportState[] },
): AnswerAccount {
  const { subject, inputs, outputs, evidence, profile } = receipt;
  return {
    receiptId: inputs.receiptId,
    model: subject.model,
    modelRoot: subject.modelRoot,
    operatorId: subject.operatorId,
    miner: subject.miner,
    evidence,
    check: inputs.replayAllowed && !inputs.zeroRetention ? 'replay allowed' : 'probes only',
    profile,
    inputUnits: inputs.units,
    outputUnits: outputs.units,
    unit: outputs.unit,
    price: outputs.price,
    ttftMs: Number(outputs.ttftUs) / 1000,
    receipt: encoded,
    offences,
  };
}
