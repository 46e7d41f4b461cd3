/** What every way of renting does once machines are reserved: waits until they answer, and starts what runs in them by itself. */
import { openRentalClient, type RentalClient, type RentalMain } from '../compute/index.ts';
import { MillraceError } from '../errors.ts';
import type { CommandContext } from './context.ts';
import type { Session } from './session.ts';

/** A rental whose machine is to answer. */
export interface ReadyWish {
  leaseId: bigint;
  /** What is to run in it by itself. */
  main?: RentalMain;
}

const READY_TIMEOUT_MS = 120_000;
const IMAGE_TIMEOUT_MS = 900_000;
const POLL_MS = 300;

/**
 * Waits until a rental answers, and starts what is to run in it: with an image, when that is there.
 * @throws rental-not-ready after two minutes, or a quarter of an hour for an image; rental-image-refused
 */
export async function makeReady(
  context: CommandContext,
  { client, signer }: Pick<Session, 'client'> & { signer: Parameters<typeof openRentalClient>[1]['signer'] },
  { leaseId, main }: ReadyWish,
): Promise<void> {
  const rental = await openRentalClient(client, { leaseId, signer });
  await waitFor(context, { what: `rental ${leaseId}`, timeoutMs: READY_TIMEOUT_MS }, () => rental.probe());
  if (main === undefined) return;
  await rental.setMain(main);
  if (main.image === undefined) return;
  context.output.note(`Rental ${leaseId}: its machine fetches the image ${main.image} …`);
  await waitFor(context, { what: `the image of rental ${leaseId}`, timeoutMs: IMAGE_TIMEOUT_MS }, () => hasImage(rental));
}

async function hasImage(rental: RentalClient): Promise<boolean> {
  const { image } = (await rental.state()) as { image?: { state?: unknown; source?: unknown; fault?: unknown } };
  if (image?.state !== 'refused') return image?.state === 'ready';
  throw new MillraceError('rental-image-refused', {
    actor: 'caller',
    message: `Rental ${rental.leaseId} cannot run in the image ${String(image.source).slice(0, 120)}: ${String(image.fault).slice(0, 60)}`,
    values: { leaseId: rental.leaseId, image: String(image.source).slice(0, 120), fault: String(image.fault).slice(0, 60) },
    hint: 'It must be a public file of the storage network: a tar archive of a root file system that has /bin/sh. The rental runs without it; millrace end-lease ends it.',
  });
}

/** Waits until something is so. @throws rental-not-ready */
async function waitFor(
  context: CommandContext,
  { what, timeoutMs }: { what: string; timeoutMs: number },
  isSo: () => Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await isSo())) {
    context.signal.throwIfAborted();
    if (performance.now() > deadline) {
      throw new MillraceError('rental-not-ready', {
        actor: 'peer',
        message: `The machine of ${what} does not answer`,
        values: { what },
        hint: 'It is reserved all the same: see `millrace rentals`. Time in which it is down is not charged; `millrace end-lease` ends it.',
      });
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
