#pragma once

// Bytes that one transport hands another through the pool's handshake: a magic, words, a text of
// any length and a checksum. That guards against mistakes and damage, not against an attacker. Pure
// functions.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace tarn {

struct Unsealed {
  std::vector<uint64_t> words;
  std::string text;
};

std::string Seal(uint64_t magic, const std::vector<uint64_t>& words, std::string_view text);

// INVALID_ARGUMENT says what is wrong with `bytes`; `what` is their name there ("UCX region").
absl::StatusOr<Unsealed> Unseal(std::string_view bytes, std::string_view what, uint64_t magic,
                                size_t words);

}  // namespace tarn
