#include "engine/text/byte_level.h"

#include <algorithm>
#include <numeric>

#include "engine/text/utf8.h"

namespace tarn::engine {
namespace {

constexpr int kAlphabetEnd = 0x100 + 68;

struct Alphabet {
  std::array<char32_t, 256> character_of{};
  std::array<int, kAlphabetEnd> byte_of{};  // -1: not in the alphabet
};

constexpr bool StandsForItself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int& byte : alphabet.byte_of) byte = -1;
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t character = StandsForItself(byte) ? byte : next++;
    alphabet.character_of[byte] = character;
    alphabet.byte_of[character] = byte;
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

std::string SpellBytes(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) AppendUtf8(kAlphabet.character_of[static_cast<uint8_t>(c)], out);
  return out;
}

std::optional<std::string> UnspellBytes(std::string_view spelled) {
  std::string out;
  while (!spelled.empty()) {
    const Utf8Unit unit = FirstUtf8Unit(spelled);
    if (unit.kind != Utf8Unit::Kind::kValid || unit.character >= kAlphabetEnd) return std::nullopt;
    const int byte = kAlphabet.byte_of[unit.character];
    if (byte < 0) return std::nullopt;
    out.push_back(static_cast<char>(byte));
    spelled.remove_prefix(unit.length);
  }
  return out;
}

std::array<uint8_t, 256> BytesInAlphabetOrder() {
  std::array<uint8_t, 256> bytes;
  std::iota(bytes.begin(), bytes.end(), 0);
  std::sort(bytes.begin(), bytes.end(), [](uint8_t a, uint8_t b) {
    return kAlphabet.character_of[a] < kAlphabet.character_of[b];
  });
  return bytes;
}

}  // namespace tarn::engine
