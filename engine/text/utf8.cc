#include "engine/text/utf8.h"

#include <algorithm>
#include <cstring>

namespace tarn::engine {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct Lead {
  size_t length = 0;  // 0: no character begins with this byte
  // Bounds of the second byte: they exclude overlong forms, surrogates and what is over U+10FFFF.
  uint8_t second_min = 0x80;
  uint8_t second_max = 0xBF;
};

Lead ClassifyLead(uint8_t byte) {
  if (byte < 0x80) return {.length = 1};
  if (byte < 0xC2) return {};
  if (byte < 0xE0) return {.length = 2};
  if (byte == 0xE0) return {.length = 3, .second_min = 0xA0};
  if (byte == 0xED) return {.length = 3, .second_max = 0x9F};
  if (byte < 0xF0) return {.length = 3};
  if (byte == 0xF0) return {.length = 4, .second_min = 0x90};
  if (byte < 0xF4) return {.length = 4};
  if (byte == 0xF4) return {.length = 4, .second_max = 0x8F};
  return {};
}

}  // namespace

Utf8Unit FirstUtf8Unit(std::string_view text) {
  using Kind = Utf8Unit::Kind;
  const auto first = static_cast<uint8_t>(text[0]);
  const Lead lead = ClassifyLead(first);
  if (lead.length == 0) return {Kind::kInvalid, 1};
  if (lead.length == 1) return {Kind::kValid, 1, first};
  char32_t character = first & (0x7F >> lead.length);
  for (size_t i = 1; i < lead.length; ++i) {
    if (i == text.size()) return {Kind::kIncomplete, i};
    const auto byte = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? lead.second_min : 0x80;
    const uint8_t high = i == 1 ? lead.second_max : 0xBF;
    if (byte < low || byte > high) return {Kind::kInvalid, i};
    character = character << 6 | (byte & 0x3F);
  }
  return {Kind::kValid, lead.length, character};
}

size_t ValidUtf8Prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint64_t word;
    if (at + sizeof(word) <= text.size()) {
      std::memcpy(&word, text.data() + at, sizeof(word));
      if ((word & 0x8080808080808080u) == 0) {
        at += sizeof(word);
        continue;
      }
    }
    const Utf8Unit unit = FirstUtf8Unit(text.substr(at));
    if (unit.kind != Utf8Unit::Kind::kValid) break;
    at += unit.length;
  }
  return at;
}

size_t LastCharacterStart(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

size_t IncompleteUtf8Suffix(std::string_view text) {
  for (size_t length = 1; length <= std::min<size_t>(3, text.size()); ++length) {
    const std::string_view suffix = text.substr(text.size() - length);
    if ((static_cast<uint8_t>(suffix[0]) & 0xC0) == 0x80) continue;
    return FirstUtf8Unit(suffix).kind == Utf8Unit::Kind::kIncomplete ? length : 0;
  }
  return 0;
}

std::string LossyUtf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t valid = ValidUtf8Prefix(text);
    out.append(text.substr(0, valid));
    text.remove_prefix(valid);
    if (text.empty()) break;
    out.append(kReplacement);
    text.remove_prefix(FirstUtf8Unit(text).length);
  }
  return out;
}

void AppendUtf8(char32_t character, std::string& out) {
  const auto tail = [&](int shift) {
    out.push_back(static_cast<char>(0x80 | ((character >> shift) & 0x3F)));
  };
  if (character < 0x80) {
    out.push_back(static_cast<char>(character));
  } else if (character < 0x800) {
    out.push_back(static_cast<char>(0xC0 | character >> 6));
    tail(0);
  } else if (character < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | character >> 12));
    tail(6), tail(0);
  } else {
    out.push_back(static_cast<char>(0xF0 | character >> 18));
    tail(12), tail(6), tail(0);
  }
}

bool IsAscii(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char c) { return c & 0x80; });
}

}  // namespace tarn::engine
