#include "common/memory/block_header.h"

#include <glog/logging.h>

#include <atomic>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/memory/payload_checksum.h"

namespace tarn {
namespace {

// Headers are exchanged as they lie in memory.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

using ChecksumFunction = unsigned long long (*)(const unsigned char*, unsigned long long);

ChecksumFunction ChooseChecksum() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return internal::ChecksumAvx512;
  if (__builtin_cpu_supports("avx2")) return internal::ChecksumAvx2;
  return internal::ChecksumSse2;
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

}  // namespace

uint64_t PayloadChecksum(std::span<const std::byte> payload) {
  static const ChecksumFunction checksum = ChooseChecksum();
  return checksum(reinterpret_cast<const unsigned char*>(payload.data()), payload.size());
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
  const BlockHeader& header = HeaderOf(page);
  const uint64_t checksum = PayloadChecksum(PayloadOf(layout, page));
  if (checksum != header.checksum) {
    return absl::DataLossError(absl::StrCat("checksum of block ", expected.key.ToHex(), " is ",
                                            absl::Hex(checksum), ", its header says ",
                                            absl::Hex(header.checksum)));
  }
  return absl::OkStatus();
}

}  // namespace tarn
