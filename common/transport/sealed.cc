#include "common/transport/sealed.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace tarn {
namespace {

constexpr size_t kWord = sizeof(uint64_t);

void AppendWord(std::string& out, uint64_t word) {
  out.append(reinterpret_cast<const char*>(&word), kWord);
}

uint64_t WordAt(std::string_view bytes, size_t index) {
  uint64_t word;
  std::memcpy(&word, bytes.data() + index * kWord, kWord);
  return word;
}

}  // namespace

std::string Seal(uint64_t magic, const std::vector<uint64_t>& words, std::string_view text) {
  std::string out;
  AppendWord(out, magic);
  for (const uint64_t word : words) AppendWord(out, word);
  out.append(text);
  AppendWord(out, XXH3_64bits(out.data(), out.size()));
  return out;
}

absl::StatusOr<Unsealed> Unseal(std::string_view bytes, std::string_view what, uint64_t magic,
                                size_t words) {
  const std::string name(what);
  if (bytes.size() < (words + 2) * kWord) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is too short: ", bytes.size(), " bytes"));
  }
  if (WordAt(bytes, 0) != magic) {
    return absl::InvalidArgumentError(absl::StrCat("not a ", name, " of this version"));
  }
  const std::string_view body = bytes.substr(0, bytes.size() - kWord);
  if (WordAt(bytes.substr(body.size()), 0) != XXH3_64bits(body.data(), body.size())) {
    return absl::InvalidArgumentError(absl::StrCat(name, " is damaged: wrong checksum"));
  }
  Unsealed unsealed{.text = std::string(body.substr((words + 1) * kWord))};
  for (size_t i = 0; i < words; ++i) unsealed.words.push_back(WordAt(body, i + 1));
  return unsealed;
}

}  // namespace tarn
