import type { ChainClient } from '../chain/index.ts';
import type { RelayPurse, RelaySessionPurse, RelaySessionTill, RelayTill } from '../connect/index.ts';
import { MillraceError, toMillraceError } from '../errors.ts';
import {
  decodePayment,
  decodePaymentRequired,
  PAYMENT_REQUIRED,
  type PaidResource,
  type Payer,
  type Payment,
  type PaymentRequired,
  type Receiver,
  tokenAddress,
} from '../token/index.ts';

/** Protocol time between a relay's claims, seconds. */
export const RELAY_CLAIM_SECONDS = 300;
/**
 * How long a node waits for what is left in its channel with a relay, seconds: more than three claims, and no delay that another role of
 * the relay asks for, so that the channel is the relay's alone though one key earns for all roles.
 */
export const RELAY_WITHDRAW_SECONDS = 960;
/** A channel is opened and topped up for so many payments, of half a chunk each. */
export const RELAY_DEPOSIT_PAYMENTS = 256n;

/** The payer's account of its channel was wrong, or the money is not seen yet: it may try again. */
const CORRECTABLE: ReadonlySet<string> = new Set(['voucher-base-wrong', 'voucher-exceeds-balance', 'receiver-busy']);

/**
 * A relay's till: each payment is a voucher of the operator's own node key for exactly what its session owes now, on the disk when it is
 * taken. It names the session and the amount, so it is good once.
 */
export function createRelayTill(options: { client: ChainClient; relayOperatorId: bigint; receiver: Receiver }): RelayTill {
  const { client, relayOperatorId, receiver } = options;
  const token = tokenAddress(client, 'network');
  return {
    open({ operatorId, nodeKey, session }): RelaySessionTill {
      let taken = 0n;
      const offerOf = (amount: bigint) => ({ amount: amount - taken, token, resource: paidBytes(relayOperatorId, session, amount) });
      const demandOf = (amount: bigint, refusal?: unknown) => receiver.demand(offerOf(amount), refusal).headers[PAYMENT_REQUIRED] as string;
      return {
        demand: (amount) => demandOf(amount),
        async accept({ amount, payment }) {
          if (amount === taken) return undefined;
          if (payment === undefined) throw unpaid(operatorId, amount, taken);
          const { payer } = decodePayment(payment).config;
          if (payer.toLowerCase() !== nodeKey.toLowerCase()) throw foreignPayer(operatorId, payer, nodeKey);
          try {
            const credit = await receiver.accept(payment, offerOf(amount));
            await credit.settle(credit.charged);
          } catch (error) {
            if (CORRECTABLE.has(toMillraceError(error).code)) return demandOf(amount, error);
            throw error;
          }
          taken = amount;
          return undefined;
        },
      };
    },
  };
}

/**
 * A node's purse: pays a relay at its node key, in the network's token, and never signs more than the channel held before the session and
 * what the session owes by the node's own count, whatever the relay says of the channel.
 */
export function createRelayPurse(options: { client: ChainClient; payer: Payer }): RelayPurse {
  const { client, payer } = options;
  const token = tokenAddress(client, 'network');
  return {
    open({ relayOperatorId, session }): RelaySessionPurse {
      let paid = 0n;
      let last: { payment: Payment; base: bigint } | undefined;
      let turn: Promise<unknown> = Promise.resolve();

      const pay = async (amount: bigint, demand: string): Promise<string | undefined> => {
        const required = decodePaymentRequired(demand);
        const terms = required.terms[0];
        const { nodeKey } = await client.read('operators', 'operator', [relayOperatorId]);
        if (terms === undefined || ![terms.receiver, terms.receiverAuthorizer].every((address) => isSame(address, nodeKey)))
          throw foreignTerms(relayOperatorId, terms?.receiver, nodeKey);
        if (!isSame(terms.token, token)) throw foreignTerms(relayOperatorId, terms.token, token);
        if (last !== undefined) paid += required.error === undefined ? last.payment.amount : await correct(demand, last);
        last = undefined;
        const due = amount - paid;
        if (due <= 0n) return undefined;
        const resource = paidBytes(relayOperatorId, session, amount);
        const own: PaymentRequired = { resource, error: undefined, terms: [{ ...terms, amount: due, shown: undefined }] };
        const payment = await payer.payment({ required: own, amountMax: due });
        // Its answer comes with the next demand; until then it counts as charged.
        payment.abandon();
        last = { payment, base: signedBy(payment) - due };
        return payment.header;
      };

      /** How much of a payment that the relay says it did not take was taken, by the account that it shows and our own signature. */
      const correct = async (demand: string, { payment, base }: { payment: Payment; base: bigint }): Promise<bigint> => {
        await payment.finish({ status: 402, header: (name) => (name === PAYMENT_REQUIRED ? demand : undefined) });
        const charged = payer.channels().find(({ key }) => key === payment.channelId)?.charged ?? base;
        return charged > base && charged <= base + payment.amount ? charged - base : 0n;
      };

      return {
        pay({ amount, demand }) {
          const paying = turn.then(() => pay(amount, demand));
          turn = paying.catch(() => {});
          return paying;
        },
      };
    },
  };
}

/** What a payment of a session pays for; both sides know it without being told. */
function paidBytes(relayOperatorId: bigint, session: string, amount: bigint): PaidResource {
  return { url: `millrace-relay:${relayOperatorId}/${session}/${amount}` };
}

function signedBy({ header }: Payment): bigint {
  return decodePayment(header).voucher.maxClaimableAmount;
}

function isSame(left: string, right: string): boolean {
  return left.toLowerCase() === right.toLowerCase();
}

function unpaid(operatorId: bigint, amount: bigint, taken: bigint): MillraceError {
  return new MillraceError('relay-unpaid', {
    actor: 'peer',
    message: `Operator ${operatorId} owes ${amount} for what was carried, paid ${taken}, and sends no voucher`,
    values: { operatorId, amount, taken },
  });
}

function foreignPayer(operatorId: bigint, got: string, expected: string): MillraceError {
  return new MillraceError('relay-payment-foreign', {
    actor: 'peer',
    message: `Operator ${operatorId} pays by a channel of ${got}, expected one of its node key ${expected}`,
    values: { operatorId, got, expected },
  });
}

function foreignTerms(relay: bigint, got: string | undefined, expected: string): MillraceError {
  return new MillraceError('relay-payment-foreign', {
    actor: 'peer',
    message: `Relay ${relay} wants a payment with ${got}, expected ${expected}: its node key, in the network’s token`,
    values: { relay, got, expected },
  });
}
