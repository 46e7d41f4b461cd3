import { type Address, concat, encodeAbiParameters, type Hex, keccak256, pad, size, toHex } from 'viem';

/**
 * Creation code of a small arbitrable written by hand, for tests: money sent with a call goes on to the jury with the call's data (`createDispute`,
 * `appeal`) and makes ERC-1497's `Dispute`; a call without money is evidence (see `evidenceCall`); a ruling by the jury is stored, plus one, at the
 * dispute's number. With `refuses` it takes no ruling.
 */
export function arbitrableCode(jury: Address, options: { refuses?: boolean } = {}): Hex {
  const word = (text: string) => keccak256(toHex(text));
  const pushJury = concat(['0x73', jury]);
  const disputeTopic = concat(['0x7f', word('Dispute(address,uint256,uint256,uint256)')]);
  const evidenceTopic = concat(['0x7f', word('Evidence(address,uint256,address,string)')]);
  const storeRuling: Hex = options.refuses === true ? '0x5f5ffd' : '0x6024356001016004355500';
  const parts = (at: { rule: number; say: number; fail: number }): Hex[] => [
    concat(['0x33', pushJury, '0x14', jumpTo(at.rule), '0x57', '0x3415', jumpTo(at.say), '0x57']),
    concat(['0x365f5f37', '0x60205f365f34', pushJury, '0x5af1', '0x15', jumpTo(at.fail), '0x57']),
    concat(['0x5f602052', '0x5f51604052', '0x5f51', pushJury, disputeTopic, '0x60406020a3', '0x00']),
    concat(['0x5b', storeRuling]),
    concat(['0x5b', '0x60203603', '0x8060205f37', '0x33', '0x5f35', pushJury, evidenceTopic, '0x845fa4', '0x00']),
    '0x5b5f5ffd',
  ];
  const sizes = parts({ rule: 0, say: 0, fail: 0 }).map((part) => size(part));
  const startOf = (index: number) => sizes.slice(0, index).reduce((sum, bytes) => sum + bytes, 0);
  const runtime = concat(parts({ rule: startOf(3), say: startOf(4), fail: startOf(5) }));
  return concat([`0x61${size(runtime).toString(16).padStart(4, '0')}`, '0x80600b5f395ff3fe', runtime]);
}

/** A call that makes such an arbitrable say evidence of a dispute, in the caller's name. */
export function evidenceCall(disputeId: bigint, text: string): Hex {
  return concat([pad(toHex(disputeId)), encodeAbiParameters([{ type: 'string' }], [text])]);
}

function jumpTo(place: number): Hex {
  return `0x61${place.toString(16).padStart(4, '0')}`;
}
