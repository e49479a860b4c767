#pragma once

// UTF-8, byte by byte: what is valid, what is not, what is not finished yet.
//
// "Invalid" follows the Unicode standard's "substitution of maximal subparts" (chapter 3, U+FFFD),
// which is also what Rust's String::from_utf8_lossy does. Pure functions.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tarn::engine {

// What stands at the front of a text.
struct Utf8Unit {
  enum class Kind {
    kValid,       // one character
    kInvalid,     // bytes that can never be part of a character, whatever follows
    kIncomplete,  // a beginning of a character that the text's end cuts off
  };
  Kind kind = Kind::kInvalid;
  size_t length = 0;       // bytes: at least 1
  char32_t character = 0;  // kValid only
};

// `text` must not be empty.
Utf8Unit FirstUtf8Unit(std::string_view text);

// Bytes of the longest valid prefix.
size_t ValidUtf8Prefix(std::string_view text);

// The last character's first byte, for a text that is valid and not empty.
size_t LastCharacterStart(std::string_view text);

// How many trailing bytes begin a character without finishing it: 0 to 3.
size_t IncompleteUtf8Suffix(std::string_view text);

// `text` with U+FFFD for each invalid part, and for an incomplete end.
std::string LossyUtf8(std::string_view text);

// Appends `character`, a Unicode scalar value, to `out`.
void AppendUtf8(char32_t character, std::string& out);

bool IsAscii(std::string_view text);

}  // namespace tarn::engine
