import { type Check, checkView, type EventArgs, type Handler, type ReadView, type Replay, type Report, Sums } from './replay.ts';

interface Track {
  payer: string;
  payee: string;
  token: string;
  meter: string;
  amount: bigint;
  interval: bigint;
  escrow: bigint;
  paid: bigint;
  refunded: bigint;
  start: bigint;
  settledTo: bigint;
  proven: bigint;
  closed: boolean;
}

/** Where the money of the rails is: accounts by token, and escrow by rail. */
interface RailBooks {
  balances: Sums;
  held: Sums;
  tracks: Map<string, Track>;
  beneficiaries: Map<string, string>;
  /** What came to and left each account in all. */
  came: Sums;
  left: Sums;
}

/**
 * Rails: accounts, escrow, what was paid for proven time and returned for unproven time (floor(amount * seconds / interval) over a rail's
 * life), and that the contract holds what it owes.
 */
export function replayRails(): Replay {
  const books = openBooks();
  return {
    group: 'rails',
    handlers: railHandlers(books),
    *checks() {
      const owed = new Sums();
      for (const [key, balance] of books.balances.entries()) {
        const [token, account] = key.split(' ') as [string, string];
        owed.add(token, balance);
        yield checkView(`account ${account} in ${token}`, balance, ['rails', 'balanceOf', [token, account]]);
      }
      for (const [railId, track] of books.tracks) {
        owed.add(track.token, track.escrow);
        yield* trackChecks(railId, track);
      }
      for (const [token, sum] of owed.entries()) {
        yield checkView(`owed in ${token}: accounts and escrow`, sum, ['rails', 'obligationsOf', [token]]);
        yield checkView(`owed in ${token}: deposits less withdrawals`, books.held.of(token), ['rails', 'obligationsOf', [token]]);
      }
    },
  };
}

/** Files' accounts: what came in is what went out and what is there. */
export function replayFiles(options: { token: string }): Replay {
  const books = openBooks();
  const files = new Map<string, bigint>();
  const token = options.token.toLowerCase();
  return {
    group: 'files',
    handlers: {
      ...railHandlers(books),
      'orderBook.BidPosted': (args) => void files.set(args.account('file'), args.int('bidId')),
      'orderBook.BidFilled'(args, _event, report) {
        if (files.get(args.account('file')) !== args.int('bidId'))
          report('bid of a filled file', args.int('bidId'), files.get(args.account('file')));
      },
    },
    *checks() {
      for (const [file, bidId] of files) {
        const key = `${token} ${file}`;
        yield checkView(`file ${file}: in less out`, books.came.of(key) - books.left.of(key), ['rails', 'balanceOf', [token, file]]);
        yield checkView(`bid of file ${file}`, bidId, ['orderBook', 'bidOfFile', [file]]);
      }
    },
  };
}

function openBooks(): RailBooks {
  const sums = () => new Sums();
  return { balances: sums(), held: sums(), tracks: new Map(), beneficiaries: new Map(), came: sums(), left: sums() };
}

type Credit = (token: string, account: string, amount: bigint) => void;
type Debit = (token: string, account: string, amount: bigint, report: Report) => void;

function movesOf({ balances, came, left }: RailBooks): { credit: Credit; debit: Debit } {
  return {
    credit(token, account, amount) {
      if (amount === 0n) return;
      balances.add(`${token} ${account}`, amount);
      came.add(`${token} ${account}`, amount);
    },
    debit(token, account, amount, report) {
      balances.add(`${token} ${account}`, -amount);
      left.add(`${token} ${account}`, amount);
      const balance = balances.of(`${token} ${account}`);
      if (balance < 0n) report(`account ${account} in ${token}`, 'not below 0', balance);
    },
  };
}

function railHandlers(books: RailBooks): Record<string, Handler> {
  const { held, tracks, beneficiaries } = books;
  const { credit, debit } = movesOf(books);
  const trackOf = (args: EventArgs): Track => tracks.get(args.word('railId')) ?? emptyTrack();
  const payeeOf = (track: Track) => beneficiaries.get(track.payee) ?? 'unknown';
  return {
    'operators.OperatorRegistered': (args) => void beneficiaries.set(args.word('operatorId'), args.account('beneficiary')),
    'operators.RotationFinished'(args) {
      if (args.int('role') === 1n) beneficiaries.set(args.word('operatorId'), args.account('newKey'));
    },
    'rails.Deposited'(args) {
      credit(args.account('token'), args.account('account'), args.int('amount'));
      held.add(args.account('token'), args.int('amount'));
    },
    'rails.Withdrawn'(args, _event, report) {
      debit(args.account('token'), args.account('account'), args.int('amount'), report);
      held.add(args.account('token'), -args.int('amount'));
    },
    'rails.Transferred'(args, _event, report) {
      debit(args.account('token'), args.account('from'), args.int('amount'), report);
      credit(args.account('token'), args.account('to'), args.int('amount'));
    },
    'rails.RailOpened'(args, _event, report) {
      const track = openTrack(args);
      tracks.set(args.word('railId'), track);
      debit(track.token, track.payer, track.escrow, report);
    },
    'rails.RailBegun'(args) {
      const track = trackOf(args);
      track.start = args.int('start');
      track.settledTo = track.start;
    },
    'rails.RailToppedUp'(args, _event, report) {
      const track = trackOf(args);
      track.escrow += args.int('amount');
      debit(track.token, track.payer, args.int('amount'), report);
    },
    'rails.RailReduced'(args) {
      const track = trackOf(args);
      track.escrow -= args.int('amount');
      track.refunded += args.int('amount');
      credit(track.token, track.payer, args.int('amount'));
    },
    'rails.RailSettled'(args, _event, report) {
      const track = trackOf(args);
      const { paid, refunded } = settleTrack(track, { settledTo: args.int('settledTo'), proven: args.int('provenSeconds') });
      const railId = args.word('railId');
      if (paid !== args.int('paid')) report(`payment of rail ${railId}`, paid, args.int('paid'));
      if (refunded !== args.int('refunded')) report(`refund of rail ${railId}`, refunded, args.int('refunded'));
      credit(track.token, payeeOf(track), paid);
      credit(track.token, track.payer, refunded);
    },
    'rails.RailClosed'(args, _event, report) {
      const track = trackOf(args);
      const [fee, forfeit] = [args.int('fee'), args.int('forfeit')];
      const refunded = track.escrow - fee - forfeit;
      if (refunded !== args.int('refunded')) report(`rest of rail ${args.word('railId')}`, refunded, args.int('refunded'));
      track.closed = true;
      track.escrow = 0n;
      track.paid += fee;
      track.refunded += refunded;
      credit(track.token, payeeOf(track), fee);
      credit(track.token, track.meter, forfeit);
      credit(track.token, track.payer, refunded);
    },
  };
}

function emptyTrack(): Track {
  const zeros = { amount: 0n, interval: 1n, escrow: 0n, paid: 0n, refunded: 0n, start: 0n, settledTo: 0n, proven: 0n };
  return { payer: 'unknown', payee: 'unknown', token: 'unknown', meter: 'unknown', closed: false, ...zeros };
}

function openTrack(args: EventArgs): Track {
  return {
    ...emptyTrack(),
    payer: args.account('payer'),
    payee: args.word('payee'),
    token: args.account('token'),
    meter: args.account('meter'),
    amount: args.int('amount'),
    interval: args.int('interval'),
    escrow: args.int('escrow'),
  };
}

/** Moves a rail to a settled time; gives what is to be paid and returned by it. */
function settleTrack(track: Track, { settledTo, proven }: { settledTo: bigint; proven: bigint }): { paid: bigint; refunded: bigint } {
  const priceOf = (seconds: bigint) => (track.amount * seconds) / track.interval;
  const paid = priceOf(proven) - priceOf(track.proven);
  const unproven = settledTo - track.start - proven;
  const refunded = priceOf(unproven) - priceOf(track.settledTo - track.start - track.proven);
  track.settledTo = settledTo;
  track.proven = proven;
  track.escrow -= paid + refunded;
  track.paid += paid;
  track.refunded += refunded;
  return { paid, refunded };
}

function* trackChecks(railId: string, track: Track): Iterable<Check> {
  const names = {
    escrow: track.escrow,
    paid: track.paid,
    refunded: track.refunded,
    provenSeconds: track.proven,
    settledTo: track.settledTo,
  };
  const fields: Record<string, bigint> = { ...names, amount: track.amount, interval: track.interval, closed: track.closed ? 1n : 0n };
  for (const [field, expected] of Object.entries(fields)) {
    yield {
      what: `${field} of rail ${railId}`,
      expected,
      actual: async (read: ReadView) => {
        const rail = (await read('rails', 'rail', [BigInt(railId)])) as Record<string, bigint | number | boolean>;
        return BigInt(rail[field] as bigint | number | boolean);
      },
    };
  }
}
