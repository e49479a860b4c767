#pragma once

// What tokenizers need of the Unicode character database, from ICU. Pure, thread-safe.

#include <string>
#include <string_view>

namespace tarn::engine {

// Normalisation form C of a valid UTF-8 text.
std::string ToNfc(std::string_view text);

// Whether ToNfc(text) is text itself. Fast for ASCII.
bool IsNfc(std::string_view text);

// The property White_Space.
bool IsSpace(char32_t character);

// What \w matches in Unicode regular expressions (UTS #18, annex C).
bool IsWordCharacter(char32_t character);

// A valid UTF-8 text without leading and trailing white space, as Python's str.strip() has it.
std::string_view StripSpace(std::string_view text);

}  // namespace tarn::engine
