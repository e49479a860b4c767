#pragma once

// Draws that come out the same in every process: numbers from names and keys. Hash tables' own
// hashes differ between processes. Pure functions.

#include <cstdint>
#include <cstring>
#include <string_view>

#include "common/base/block_key.h"

namespace tarn::kvstore {

// Spreads the bits of a word over all of it: the finaliser of splitmix64 (Steele, Lea, Flood 2014).
inline uint64_t MixBits(uint64_t word) {
  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
  word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
  return word ^ (word >> 31);
}

// A number that stands for a name: FNV-1a, mixed.
inline uint64_t DrawOf(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char byte : name) {
    hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
  }
  return MixBits(hash);
}

// What a name, by its number, draws for a block.
inline uint64_t DrawOf(uint64_t name, const BlockKey& key) {
  uint64_t words[2];
  std::memcpy(words, key.bytes.data(), sizeof(words));
  return MixBits(MixBits(name ^ words[0]) ^ words[1]);
}

}  // namespace tarn::kvstore
