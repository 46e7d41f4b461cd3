import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { type ChannelsNetwork, startChannelsNetwork, TEST_INTERVAL } from './voucher-fixture.ts';
import type { Payer, Payment } from './voucher-payer.ts';
import type { Credit, PaymentOffer, Receiver } from './voucher-receiver.ts';

let network: ChannelsNetwork;
before(async () => {
  network = await startChannelsNetwork();
});
after(() => network?.stop());

/** What can happen to a request; `part` of 10 is delivered. */
interface Step {
  fate: 'answered' | 'request-lost' | 'answer-lost' | 'payer-dies' | 'receiver-dies' | 'payer-forgets';
  /** The payer asks again with the same key. */
  again: boolean;
  amount: bigint;
  part: number;
}

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    fate: fc.constantFrom('answered', 'answered', 'request-lost', 'answer-lost', 'payer-dies', 'receiver-dies', 'payer-forgets'),
    again: fc.boolean(),
    amount: fc.bigInt({ min: 1n, max: 50n }),
    part: fc.nat(10),
  }),
  { minLength: 1, maxLength: 14 },
);

test('whatever is lost and whoever dies, what is charged is what was delivered, once, and never above what was signed', async () => {
  let run = 0;
  await fc.assert(
    fc.asyncProperty(steps, async (plan) => {
      run += 1;
      await new Story(run).tell(plan);
    }),
    { numRuns: 12 },
  );
});

class Story {
  readonly #run: number;
  #payer!: Payer;
  #receiver!: Receiver;
  #memories = 0;
  /** Base units that the receiver may keep: delivered, each request once. */
  #earned = 0n;
  #signedMost = 0n;

  constructor(run: number) {
    this.#run = run;
  }

  async tell(plan: readonly Step[]): Promise<void> {
    await this.#open();
    try {
      for (const [index, step] of plan.entries()) await this.#happen(step, index);
      // At the end both agree, after at most one correction.
      await this.#request({ amount: 1n, resource: { url: `http://shop.example/${this.#run}/end` } }, 'the_last_payment', 10, true);
      const [channel] = [...this.#receiver.channels()];
      assert.ok(channel !== undefined);
      const known = this.#payer.channels().find(({ key }) => key === channel.key);
      assert.equal(channel.charged, this.#earned);
      assert.equal(known?.charged, this.#earned);
      assert.ok(channel.voucher.maxClaimableAmount >= channel.charged && channel.voucher.maxClaimableAmount <= this.#signedMost);
      assert.equal(this.#receiver.claimable()[0]?.total, channel.charged);
    } finally {
      await this.#payer.close();
      await this.#receiver.close();
    }
  }

  async #open(): Promise<void> {
    const folder = join(network.folder, `story-${this.#run}`);
    // A withdrawal delay of its own gives every run its own channel.
    const withdrawDelaySeconds = 3 * TEST_INTERVAL + this.#run;
    this.#receiver = await network.receiver({ folder: join(folder, 'receiver'), withdrawDelaySeconds, limits: { repeatsMax: 100 } });
    this.#payer = await network.payer(2, { folder: join(folder, `payer-${this.#memories}`), depositRequests: 1_000n });
  }

  async #happen({ fate, again, amount, part }: Step, index: number): Promise<void> {
    const offer: PaymentOffer = { amount, resource: { url: `http://shop.example/${this.#run}/${index}` } };
    const key = `payment_${index}`;
    if (fate === 'request-lost') {
      (await this.#sign(offer, key)).abandon();
    } else {
      await this.#request(offer, key, part, fate !== 'answer-lost');
    }
    if (fate === 'payer-dies' || fate === 'receiver-dies' || fate === 'payer-forgets') {
      if (fate === 'payer-forgets') this.#memories += 1;
      await this.#payer.close();
      await this.#receiver.close();
      await this.#open();
    }
    if (again && fate !== 'payer-forgets') await this.#request(offer, key, part, true);
  }

  async #sign(offer: PaymentOffer, idempotencyKey: string): Promise<Payment> {
    const required = this.#receiver.demand(offer).headers['PAYMENT-REQUIRED'] as string;
    const payment = await this.#payer.payment({ required, amountMax: offer.amount, idempotencyKey });
    for (const { signed } of this.#payer.channels()) if (signed > this.#signedMost) this.#signedMost = signed;
    return payment;
  }

  /** One request with its payment, and with a second one when the receiver corrects the payer. */
  async #request(offer: PaymentOffer, key: string, part: number, isAnswered: boolean): Promise<void> {
    for (let attempt = 0; attempt < 2; attempt += 1) {
      const payment = await this.#sign(offer, key);
      let credit: Credit | undefined;
      let headers: Record<string, string>;
      try {
        credit = await this.#receiver.accept(payment.header, offer);
        headers = { 'PAYMENT-RESPONSE': credit.header };
      } catch (error) {
        headers = this.#receiver.demand(offer, error).headers;
      }
      if (!isAnswered) payment.abandon();
      const outcome = isAnswered
        ? await payment.finish({ status: credit === undefined ? 402 : 200, header: (name) => headers[name] })
        : undefined;
      if (credit !== undefined) {
        const delivered = (credit.charged * BigInt(part)) / 10n;
        await credit.settle(delivered);
        this.#earned += delivered;
        return;
      }
      if (outcome?.kind !== 'corrected') return assert.ok(!isAnswered, `refused: ${JSON.stringify(outcome)}`);
    }
    assert.fail('corrected twice');
  }
}
