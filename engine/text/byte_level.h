#pragma once

// The byte-level alphabet of GPT-2's tokenizer: how tokenizer files spell arbitrary bytes as text.
//
// A printable Latin-1 byte stands for itself; the other 68 bytes are U+0100 and up, in order. So a
// space is "Ġ" and a newline "Ċ". Pure functions.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tarn::engine {

// `bytes` in the alphabet; valid UTF-8.
std::string SpellBytes(std::string_view bytes);

// The inverse. Nothing if `spelled` has a character that is not in the alphabet.
std::optional<std::string> UnspellBytes(std::string_view spelled);

// All bytes, ordered by their characters in the alphabet: the usual order of the first 256 ids.
std::array<uint8_t, 256> BytesInAlphabetOrder();

}  // namespace tarn::engine
