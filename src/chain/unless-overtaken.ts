import { toMillraceError } from '../errors.ts';

/**
 * What an act on chain gives; undefined where the contract refused it by one of these codes, which say that somebody else was first, or that its moment has
 * passed or not come.
 * @throws all else that the act throws
 */
export async function unlessOvertaken<Result>(codes: ReadonlySet<string>, act: () => Promise<Result>): Promise<Result | undefined> {
  try {
    return await act();
  } catch (error) {
    if (codes.has(toMillraceError(error).code)) return undefined;
    throw error;
  }
}
