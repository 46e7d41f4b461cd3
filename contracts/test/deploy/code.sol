// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Vm} from "forge-std/Vm.sol";

/// @dev Creates the contract that the file of the same name has, as the caller, from what was compiled of it; `args` are the encoded
/// arguments of its constructor, and what it reverts with is kept. A test that says `new` carries the whole code of the contract and
/// compiles it once more, and so does every test that inherits it. Hence one function here (deploy/*.sol) for each contract, with the
/// types of its arguments.
function deployCode(string memory name, bytes memory args) returns (address) {
    return Vm(address(uint160(uint256(keccak256("hevm cheat code"))))).deployCode(string.concat(name, ".sol:", name), args);
}
