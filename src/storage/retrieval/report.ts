import type { Hex } from 'viem';
import { type ChainClient, isSignedBy, type Signer, type TypedDataShape, typedDataDigest } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { type ChannelConfig, readChannel, type VoucherCodec } from '../../token/index.ts';
import { type Fields, readFields } from '../market/fields.ts';

/**
 * What a paying client says of a seller: how its retrievals went, with the channel through which it paid. The channel's money on
 * chain is the evidence that the client is no invention: each voice cost a deposit and its gas. Amounts in base units.
 */
export interface RetrievalReport {
  /** The channel's payer; it signs. */
  client: Hex;
  /** The channel's receiver. */
  holder: Hex;
  channelId: Hex;
  /** Of two reports about one channel the one with the greater sequence counts. */
  sequence: bigint;
  served: number;
  failed: number;
  bytes: bigint;
  paid: bigint;
}

/** A report with its signature and the channel's terms, from which its id follows. */
export interface SignedReport {
  report: RetrievalReport;
  config: ChannelConfig;
  signature: Hex;
}

/** Reports about sellers, each checked against the chain when it came. */
export interface ReportBook {
  /** @throws bad-field, bad-report, report-stale */
  take(value: unknown): Promise<void>;
  of(holder: Hex): SignedReport[];
}

const FIELDS = [
  { name: 'client', type: 'address' },
  { name: 'holder', type: 'address' },
  { name: 'channelId', type: 'bytes32' },
  { name: 'sequence', type: 'uint64' },
  { name: 'served', type: 'uint32' },
  { name: 'failed', type: 'uint32' },
  { name: 'bytes', type: 'uint64' },
  { name: 'paid', type: 'uint128' },
];
const shapes = new Map<string, TypedDataShape>();
const REPORTS_MAX = 10_000;
const REPORTS_PER_HOLDER = 100;
/** One client counts for at most so many retrievals in a seller's public rate. */
const WEIGHT_MAX = 20;

/** Signs what the client saw. */
export async function signReport(
  codec: VoucherCodec,
  signer: Signer,
  config: ChannelConfig,
  seen: Omit<RetrievalReport, 'client' | 'holder' | 'channelId'>,
): Promise<SignedReport> {
  const report = { ...seen, client: config.payer, holder: config.receiver, channelId: codec.channelId(config) };
  return { report, config, signature: await signer.signDigest(digestOf(codec, report)) };
}

/** The JSON form. */
export function reportToJson({ report, config, signature }: SignedReport): Record<string, unknown> {
  const said = Object.entries(report).map(([name, value]) => [name, typeof value === 'string' ? value : value.toString()]);
  return { ...Object.fromEntries(said), config: { ...config, withdrawDelay: String(config.withdrawDelay) }, signature };
}

/** A stranger's report whose signature and channel fit each other; whether the channel has money is not looked at. @throws bad-field, bad-report */
export function readReport(codec: VoucherCodec, value: unknown): SignedReport {
  const fields = readFields(value, 'report');
  const config = readConfig(fields.object('config'));
  const report: RetrievalReport = {
    client: fields.hex('client', 20),
    holder: fields.hex('holder', 20),
    channelId: fields.hex('channelId', 32),
    sequence: fields.uint('sequence', 64),
    served: fields.small('served', 32),
    failed: fields.small('failed', 32),
    bytes: fields.uint('bytes', 64),
    paid: fields.uint('paid', 128),
  };
  const signature = fields.hex('signature', 65);
  const isBound = config.payer === report.client && config.receiver === report.holder && codec.channelId(config) === report.channelId;
  if (!isBound) throw badReport('its channel is another one');
  if (report.client === report.holder) throw badReport('nobody reports on itself');
  if (!isSignedBy(report.client, digestOf(codec, report), signature)) throw badReport('it is not signed by the client');
  return { report, config, signature };
}

/** Opens a book of reports; a report counts when its channel has, or had, at least what the client says it paid. */
export function createReportBook(client: ChainClient, codec: VoucherCodec): ReportBook {
  const reports = new Map<Hex, SignedReport>();
  return {
    async take(value) {
      const signed = readReport(codec, value);
      const { channelId, holder, paid, sequence } = signed.report;
      const known = reports.get(channelId);
      if (known !== undefined && known.report.sequence >= sequence) throw stale(sequence, known.report.sequence);
      const { balance } = await readChannel(client, channelId);
      if (balance === 0n || paid > balance) throw badReport(`its channel holds ${balance}, it says it paid ${paid}`);
      const ofHolder = [...reports.values()].filter((each) => each.report.holder === holder);
      if (known === undefined && (reports.size >= REPORTS_MAX || ofHolder.length >= REPORTS_PER_HOLDER)) {
        // The smallest payment gives way to a greater one.
        const least = (ofHolder.length > 0 ? ofHolder : [...reports.values()]).reduce((low, each) =>
          each.report.paid < low.report.paid ? each : low,
        );
        if (least.report.paid >= paid) throw badReport('there are enough with greater payments');
        reports.delete(least.report.channelId);
      }
      reports.set(channelId, signed);
    },
    of: (holder) => [...reports.values()].filter(({ report }) => report.holder === holder.toLowerCase()),
  };
}

/** A seller's public counts: every client's share of success, no client counting for more than 20 retrievals. */
export function publicCounts(reports: readonly SignedReport[]): { served: number; failed: number; clients: number } {
  const byClient = new Map<Hex, RetrievalReport>();
  for (const { report } of reports) byClient.set(report.client, report);
  let [served, failed] = [0, 0];
  for (const report of byClient.values()) {
    const tried = report.served + report.failed;
    if (tried === 0) continue;
    const weight = Math.min(tried, WEIGHT_MAX) / tried;
    served += report.served * weight;
    failed += report.failed * weight;
  }
  return { served, failed, clients: byClient.size };
}

function digestOf(codec: VoucherCodec, report: RetrievalReport): Hex {
  const key = `${codec.chainId}:${codec.contract.toLowerCase()}`;
  let shape = shapes.get(key);
  if (shape === undefined) {
    shape = {
      domain: { name: 'Millrace Retrieval', version: '1', chainId: codec.chainId, verifyingContract: codec.contract },
      types: { RetrievalReport: FIELDS },
      primaryType: 'RetrievalReport',
    };
    shapes.set(key, shape);
  }
  return typedDataDigest(shape, { ...report });
}

function readConfig(fields: Fields): ChannelConfig {
  return {
    payer: fields.hex('payer', 20),
    payerAuthorizer: fields.hex('payerAuthorizer', 20),
    receiver: fields.hex('receiver', 20),
    receiverAuthorizer: fields.hex('receiverAuthorizer', 20),
    token: fields.hex('token', 20),
    withdrawDelay: fields.small('withdrawDelay', 32),
    salt: fields.hex('salt', 32),
  };
}

function badReport(why: string): MillraceError {
  return new MillraceError('bad-report', { actor: 'caller', message: `The report does not count: ${why}`, values: { why } });
}

function stale(got: bigint, known: bigint): MillraceError {
  return new MillraceError('report-stale', {
    actor: 'caller',
    message: `Got report ${got} of a channel, report ${known} is known`,
    values: { got, known },
  });
}
