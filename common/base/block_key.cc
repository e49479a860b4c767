#include "common/base/block_key.h"

#include <glog/logging.h>
#include <openssl/sha.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace tarn {
namespace {

// Tokens are hashed as little-endian 32-bit words, which is what they are in memory here.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

BlockKey Truncate(const uint8_t (&digest)[SHA256_DIGEST_LENGTH]) {
  BlockKey key;
  std::memcpy(key.bytes.data(), digest, key.bytes.size());
  return key;
}

void AppendSized(std::string& out, std::string_view field) {
  const uint64_t size = field.size();
  out.append(reinterpret_cast<const char*>(&size), sizeof(size));
  out.append(field);
}

}  // namespace

std::string BlockKey::ToHex() const {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

absl::StatusOr<BlockKey> BlockKey::FromBytes(std::string_view bytes) {
  BlockKey key;
  if (bytes.size() != key.bytes.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a block key has 16 bytes, this one has ", bytes.size()));
  }
  std::memcpy(key.bytes.data(), bytes.data(), bytes.size());
  return key;
}

BlockKey BlockDomain::Root() const {
  std::string text = "tarn.block.v1";
  text.append(reinterpret_cast<const char*>(&model_fingerprint), sizeof(model_fingerprint));
  text.append(reinterpret_cast<const char*>(&layout_fingerprint), sizeof(layout_fingerprint));
  AppendSized(text, lora);
  AppendSized(text, salt);
  uint8_t digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const uint8_t*>(text.data()), text.size(), digest);
  return Truncate(digest);
}

// The one-shot EVP interface allocates a context for each call, which costs more than the hash of
// a small block; these are deprecated but are the same SHA-NI code without it.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
BlockKey ChildKey(const BlockKey& parent, std::span<const TokenId> tokens) {
  SHA256_CTX context;
  SHA256_Init(&context);
  SHA256_Update(&context, parent.bytes.data(), parent.bytes.size());
  SHA256_Update(&context, tokens.data(), tokens.size_bytes());
  uint8_t digest[SHA256_DIGEST_LENGTH];
  SHA256_Final(digest, &context);
  return Truncate(digest);
}
#pragma GCC diagnostic pop

std::vector<BlockKey> ChainKeys(const BlockKey& root, std::span<const TokenId> tokens,
                                int block_tokens) {
  CHECK_GT(block_tokens, 0);
  const size_t step = static_cast<size_t>(block_tokens);
  std::vector<BlockKey> keys;
  keys.reserve(tokens.size() / step);
  BlockKey parent = root;
  for (size_t begin = 0; begin + step <= tokens.size(); begin += step) {
    parent = ChildKey(parent, tokens.subspan(begin, step));
    keys.push_back(parent);
  }
  return keys;
}

}  // namespace tarn
