#include "common/memory/block_header.h"

#include <emmintrin.h>
#include <glog/logging.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <atomic>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/memory/payload_checksum.h"

namespace tarn {
namespace {

// Headers are exchanged as they lie in memory.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

struct ChecksumCode {
  unsigned long long (*checksum)(const unsigned char*, unsigned long long);
  unsigned long long (*hash_piece)(const unsigned char*, unsigned long long, unsigned long long);
  unsigned long long (*copy_piece)(unsigned char*, const unsigned char*, unsigned long long);
};

ChecksumCode ChooseCode() {
  using namespace internal;
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) {
    return {ChecksumAvx512, HashPieceAvx512, CopyPieceAvx512};
  }
  if (__builtin_cpu_supports("avx2")) return {ChecksumAvx2, HashPieceAvx2, CopyPieceAvx2};
  return {ChecksumSse2, HashPieceSse2, CopyPieceSse2};
}

const ChecksumCode& Code() {
  static const ChecksumCode code = ChooseCode();
  return code;
}

const unsigned char* Bytes(const std::byte* bytes) {
  return reinterpret_cast<const unsigned char*>(bytes);
}

// A reader may look at the page from another thread or process, but never writes it.
std::atomic_ref<uint64_t> MagicOf(const BlockHeader& header) {
  return std::atomic_ref<uint64_t>(const_cast<uint64_t&>(header.magic));
}

BlockHeader& MutableHeaderOf(std::span<std::byte> page) {
  return const_cast<BlockHeader&>(HeaderOf(page));
}

std::span<const std::byte> PayloadOf(const BlockLayout& layout, std::span<const std::byte> page) {
  return page.subspan(layout.payload_offset(), layout.payload_bytes());
}

absl::Status CheckMagic(const BlockHeader& header) {
  const uint64_t magic = MagicOf(header).load(std::memory_order_acquire);
  if (magic == BlockHeader::kMagic) return absl::OkStatus();
  if (magic == 0) return absl::AbortedError("the page is out of use: its block was given up");
  return absl::DataLossError(absl::StrCat("magic is ", absl::Hex(magic), ": not a block"));
}

absl::Status CheckLayout(const BlockLayout& layout, const BlockHeader& header) {
  if (header.layout_fingerprint != layout.Fingerprint()) {
    return absl::DataLossError(absl::StrCat("layout_fingerprint is ",
                                            absl::Hex(header.layout_fingerprint),
                                            ", not this node's ", absl::Hex(layout.Fingerprint())));
  }
  if (header.payload_bytes != layout.payload_bytes()) {
    return absl::DataLossError(absl::StrCat("payload_bytes is ", header.payload_bytes,
                                            ", the layout has ", layout.payload_bytes()));
  }
  if (header.reserved != 0) return absl::DataLossError("reserved is not 0");
  return absl::OkStatus();
}

absl::Status CheckIdentity(const BlockIdentity& expected, const BlockHeader& header) {
  if (header.key != expected.key) {
    return absl::AbortedError(
        absl::StrCat("the page holds block ", header.key.ToHex(), ", not ", expected.key.ToHex()));
  }
  if (header.epoch != expected.epoch) {
    return absl::AbortedError(absl::StrCat("block ", expected.key.ToHex(), " has epoch ",
                                           header.epoch, ", not ", expected.epoch));
  }
  if (header.token_count != expected.token_count) {
    return absl::DataLossError(absl::StrCat("block ", expected.key.ToHex(), " has token_count ",
                                            header.token_count, ", not ", expected.token_count));
  }
  return absl::OkStatus();
}

// All but the checksum.

absl::Status CheckChecksum(const BlockIdentity& expected, std::span<const std::byte> page,
                           uint64_t checksum) {
  if (checksum == HeaderOf(page).checksum) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("checksum of block ", expected.key.ToHex(), " is ",
                                          absl::Hex(checksum), ", its header says ",
                                          absl::Hex(HeaderOf(page).checksum)));
}

}  // namespace

uint64_t PayloadChecksum(std::span<const std::byte> payload) {
  return Code().checksum(Bytes(payload.data()), payload.size());
}

PayloadHasher::PayloadHasher(size_t payload_bytes) {
  digests_.reserve((payload_bytes + kPiece - 1) / kPiece);
}

void PayloadHasher::Add(std::span<const std::byte> piece) {
  digests_.push_back(Code().hash_piece(Bytes(piece.data()), piece.size(), digests_.size()));
}

void PayloadHasher::CopyAndAdd(const std::byte* from, std::byte* to) {
  constexpr size_t kLine = 64;
  if (reinterpret_cast<uintptr_t>(to) % kLine != 0) {
    std::memcpy(to, from, kPiece);
    return Add({to, kPiece});
  }
  auto* bytes = reinterpret_cast<unsigned char*>(to);
  digests_.push_back(Code().copy_piece(bytes, Bytes(from), digests_.size()));
}

uint64_t PayloadHasher::Checksum() const {
  // The streaming stores of CopyAndAdd come before whatever makes the page known to others.
  _mm_sfence();
  const auto digests = std::as_bytes(std::span(digests_));
  return XXH3_64bits(digests.data(), digests.size());
}

const BlockHeader& HeaderOf(std::span<const std::byte> page) {
  CHECK_GE(page.size(), sizeof(BlockHeader));
  CHECK_EQ(reinterpret_cast<uintptr_t>(page.data()) % alignof(BlockHeader), 0u);
  return *reinterpret_cast<const BlockHeader*>(page.data());
}

void SealBlock(const BlockLayout& layout, const BlockIdentity& identity,
               std::span<std::byte> page) {
  CHECK_EQ(page.size(), layout.page_bytes());
  InvalidateBlock(page);
  BlockHeader& header = MutableHeaderOf(page);
  header.key = identity.key;
  header.layout_fingerprint = layout.Fingerprint();
  header.token_count = identity.token_count;
  header.reserved = 0;
  header.payload_bytes = layout.payload_bytes();
  header.epoch = identity.epoch;
  header.checksum = PayloadChecksum(PayloadOf(layout, page));
  MagicOf(header).store(BlockHeader::kMagic, std::memory_order_release);
}

void RestampBlock(std::span<std::byte> page, uint64_t epoch) {
  MutableHeaderOf(page).epoch = epoch;
}

void InvalidateBlock(std::span<std::byte> page) {
  // A release store orders what is before it; here what follows must not become visible earlier.
  // An exchange does that, and unlike a fence ThreadSanitizer knows it.
  MagicOf(MutableHeaderOf(page)).exchange(0, std::memory_order_acq_rel);
}

absl::Status VerifyHeader(const BlockLayout& layout, const BlockIdentity& expected,
                          std::span<const std::byte> page) {
  if (page.size() != layout.page_bytes()) {
    return absl::DataLossError(
        absl::StrCat("the page has ", page.size(), " bytes, the layout ", layout.page_bytes()));
  }
  const BlockHeader& header = HeaderOf(page);
  RETURN_IF_ERROR(CheckMagic(header));
  RETURN_IF_ERROR(CheckLayout(layout, header));
  return CheckIdentity(expected, header);
}

absl::Status VerifyBlock(const BlockLayout& layout, const BlockIdentity& expected,
                         std::span<const std::byte> page) {
  RETURN_IF_ERROR(VerifyHeader(layout, expected, page));
  return CheckChecksum(expected, page, PayloadChecksum(PayloadOf(layout, page)));
}

absl::Status VerifyBlock(const BlockLayout& layout, const BlockIdentity& expected,
                         std::span<const std::byte> page, uint64_t payload_checksum) {
  RETURN_IF_ERROR(VerifyHeader(layout, expected, page));
  return CheckChecksum(expected, page, payload_checksum);
}

}  // namespace tarn
