#include "kvstore/tier/ssd/index_record.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "absl/strings/str_cat.h"

namespace tarn::kvstore {
namespace {

constexpr uint8_t kRecordVersion = 1;
constexpr uint8_t kHasParent = 1;

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

class Writer {
 public:
  template <typename T>
  Writer& Put(T value) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Writer& PutString(const std::string& value) {
    const size_t size = std::min<size_t>(value.size(), UINT16_MAX);
    Put(static_cast<uint16_t>(size));
    bytes_.append(value, 0, size);
    return *this;
  }
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Zeros once the bytes are short; Finish says so.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  template <typename T>
  Reader& Get(T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::string_view taken = Take(sizeof(value));
    if (!taken.empty()) std::memcpy(&value, taken.data(), sizeof(value));
    return *this;
  }
  Reader& GetString(std::string& value) {
    uint16_t size = 0;
    Get(size);
    value = Take(size);
    return *this;
  }
  absl::Status Finish(const char* what) const {
    if (!short_ && bytes_.empty()) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(what, short_ ? " is cut short" : " is too long"));
  }

 private:
  std::string_view Take(size_t size) {
    if (short_ || bytes_.size() < size) {
      short_ = true;
      return {};
    }
    const std::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return taken;
  }

  std::string_view bytes_;
  bool short_ = false;
};

absl::Time TimeOf(int64_t nanos) { return absl::FromUnixNanos(nanos); }

}  // namespace

std::string Encode(const IndexRecord& record) {
  const BlockRecord& block = record.block;
  Writer writer;
  writer.Put(kRecordVersion).Put(block.parent.has_value() ? kHasParent : uint8_t{0});
  writer.Put(block.key.bytes);
  if (block.parent.has_value()) writer.Put(block.parent->bytes);
  writer.Put(block.token_count).Put(block.uses).Put(absl::ToUnixNanos(block.last_use));
  writer.Put(block.traits.position).Put(block.traits.turn).Put(block.traits.new_blocks);
  writer.PutString(block.traits.tenant.value());
  writer.Put(record.epoch).Put(record.checksum).Put(record.size).Put(record.sequence);
  return writer.Take();
}

absl::StatusOr<IndexRecord> DecodeIndexRecord(std::string_view bytes) {
  Reader reader(bytes);
  uint8_t version = 0;
  uint8_t flags = 0;
  reader.Get(version).Get(flags);
  if (version != kRecordVersion || flags > kHasParent) {
    return absl::DataLossError(absl::StrCat("record has version ", version, ", flags ", flags));
  }
  IndexRecord record;
  BlockRecord& block = record.block;
  int64_t last_use = 0;
  std::string tenant;
  reader.Get(block.key.bytes);
  if (flags == kHasParent) reader.Get(block.parent.emplace().bytes);
  reader.Get(block.token_count).Get(block.uses).Get(last_use);
  reader.Get(block.traits.position).Get(block.traits.turn).Get(block.traits.new_blocks);
  reader.GetString(tenant);
  reader.Get(record.epoch).Get(record.checksum).Get(record.size).Get(record.sequence);
  if (absl::Status status = reader.Finish("record"); !status.ok()) return status;
  block.last_use = TimeOf(last_use);
  block.traits.tenant = TenantId(std::move(tenant));
  return record;
}

std::string Encode(const SlotHeat& heat) {
  return Writer().Put(heat.sequence).Put(absl::ToUnixNanos(heat.last_use)).Put(heat.uses).Take();
}

absl::StatusOr<SlotHeat> DecodeSlotHeat(std::string_view bytes) {
  SlotHeat heat;
  int64_t last_use = 0;
  Reader reader(bytes);
  reader.Get(heat.sequence).Get(last_use).Get(heat.uses);
  if (absl::Status status = reader.Finish("heat"); !status.ok()) return status;
  heat.last_use = TimeOf(last_use);
  return heat;
}

std::string Encode(const Superblock& superblock) {
  Writer writer;
  writer.Put(superblock.format).Put(superblock.layout_fingerprint);
  writer.Put(superblock.model_fingerprint).Put(superblock.slot_bytes);
  return writer.PutString(superblock.layout).Take();
}

absl::StatusOr<Superblock> DecodeSuperblock(std::string_view bytes) {
  Superblock superblock{.format = 0};
  Reader reader(bytes);
  reader.Get(superblock.format);
  if (superblock.format != Superblock::kFormat && bytes.size() >= sizeof(superblock.format)) {
    return superblock;
  }
  reader.Get(superblock.layout_fingerprint).Get(superblock.model_fingerprint);
  reader.Get(superblock.slot_bytes).GetString(superblock.layout);
  if (absl::Status status = reader.Finish("superblock"); !status.ok()) return status;
  return superblock;
}

}  // namespace tarn::kvstore
