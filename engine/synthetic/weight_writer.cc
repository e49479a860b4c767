#include "engine/synthetic/weight_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "engine/synthetic/random_tensor.h"

namespace tarn::engine {

static_assert(std::endian::native == std::endian::little, "safetensors is little-endian");

namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kChunkElements = int64_t{1} << 20;

// A file open for writing.
class File {
 public:
  static absl::StatusOr<std::unique_ptr<File>> Create(const std::string& path) {
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return FileError(errno, "cannot be created", path);
    return std::make_unique<File>(fd, path);
  }
  File(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // Thread-safe.
  absl::Status WriteAt(int64_t offset, const void* data, size_t size) {
    const char* at = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t written = pwrite(fd_, at, size, offset);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return FileError(errno, "cannot be written", path_);
      at += written;
      offset += written;
      size -= static_cast<size_t>(written);
    }
    return absl::OkStatus();
  }

  // Some file systems report a full disk only here.
  absl::Status Finish() {
    const bool synced = fdatasync(fd_) == 0 || errno == EINVAL;
    const int error = errno;
    const int fd = std::exchange(fd_, -1);
    if (!synced) {
      close(fd);
      return FileError(error, "cannot be written", path_);
    }
    return close(fd) == 0 ? absl::OkStatus() : FileError(errno, "cannot be written", path_);
  }

 private:
  int fd_;
  const std::string path_;
};

// One safetensors file: which tensors, and where their data lies.
struct Shard {
  std::string name;
  std::vector<RandomTensor> tensors;
  std::vector<int64_t> offsets;  // in the data
  int64_t data_bytes = 0;
  int64_t data_start = 0;  // in the file
  std::unique_ptr<File> file;
};

std::vector<Shard> PlanShards(const SyntheticSpec& spec) {
  std::vector<Shard> shards(1);
  for (RandomTensor& tensor : ListTensors(spec.config, spec.used_vocab)) {
    const int64_t bytes = tensor.elements() * DataTypeBytes(spec.type);
    const bool full = spec.max_shard_bytes > 0 && shards.back().data_bytes > 0 &&
                      shards.back().data_bytes + bytes > spec.max_shard_bytes;
    if (full) shards.emplace_back();
    Shard& shard = shards.back();
    shard.offsets.push_back(shard.data_bytes);
    shard.data_bytes += bytes;
    shard.tensors.push_back(std::move(tensor));
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].name = spec.max_shard_bytes <= 0
                         ? "model.safetensors"
                         : absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, shards.size());
  }
  return shards;
}

std::string MakeHeader(const Shard& shard, DataType type) {
  Json json = {{"__metadata__", {{"format", "pt"}}}};
  for (size_t i = 0; i < shard.tensors.size(); ++i) {
    const RandomTensor& tensor = shard.tensors[i];
    const int64_t end = shard.offsets[i] + tensor.elements() * DataTypeBytes(type);
    json[tensor.name] = {{"dtype", DataTypeName(type)},
                         {"shape", tensor.shape},
                         {"data_offsets", {shard.offsets[i], end}}};
  }
  std::string header = json.dump();
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return header;
}

absl::Status StartShard(const std::string& directory, DataType type, Shard& shard) {
  ASSIGN_OR_RETURN(shard.file, File::Create(absl::StrCat(directory, "/", shard.name)));
  const std::string header = MakeHeader(shard, type);
  const uint64_t size = header.size();
  RETURN_IF_ERROR(shard.file->WriteAt(0, &size, sizeof(size)));
  RETURN_IF_ERROR(shard.file->WriteAt(sizeof(size), header.data(), header.size()));
  shard.data_start = static_cast<int64_t>(sizeof(size) + header.size());
  return absl::OkStatus();
}

std::string MakeIndex(const std::vector<Shard>& shards) {
  int64_t total = 0;
  Json map = Json::object();
  for (const Shard& shard : shards) {
    total += shard.data_bytes;
    for (const RandomTensor& tensor : shard.tensors) map[tensor.name] = shard.name;
  }
  return Json{{"metadata", {{"total_size", total}}}, {"weight_map", map}}.dump(2) + "\n";
}

// A piece of one tensor: the unit of work.
struct Chunk {
  const Shard* shard;
  size_t tensor;
  int64_t first;
  int64_t elements;
};

std::vector<Chunk> ListChunks(const std::vector<Shard>& shards) {
  std::vector<Chunk> chunks;
  for (const Shard& shard : shards) {
    for (size_t tensor = 0; tensor < shard.tensors.size(); ++tensor) {
      const int64_t elements = shard.tensors[tensor].elements();
      for (int64_t first = 0; first < elements; first += kChunkElements) {
        chunks.push_back({&shard, tensor, first, std::min(kChunkElements, elements - first)});
      }
    }
  }
  return chunks;
}

// Fills and writes chunks on several threads until all are done or one fails.
class ChunkWriter {
 public:
  ChunkWriter(const SyntheticSpec& spec, std::vector<Chunk> chunks,
              const std::function<void(int64_t, int64_t)>& progress)
      : spec_(spec), chunks_(std::move(chunks)), progress_(progress), total_(WeightBytes(spec)) {}

  absl::Status Run(int threads) {
    std::vector<std::thread> workers;
    for (int i = 1; i < threads; ++i) workers.emplace_back([this] { Work(); });
    Work();
    for (std::thread& worker : workers) worker.join();
    MutexLock lock(mutex_);
    return status_;
  }

 private:
  void Work() {
    std::vector<std::byte> buffer(kChunkElements * DataTypeBytes(spec_.type));
    for (size_t i = next_++; i < chunks_.size(); i = next_++) {
      if (!Report(Write(chunks_[i], buffer), chunks_[i])) return;
    }
  }

  absl::Status Write(const Chunk& chunk, std::span<std::byte> buffer) {
    const int64_t size = DataTypeBytes(spec_.type);
    const auto bytes = buffer.first(chunk.elements * size);
    FillTensor(chunk.shard->tensors[chunk.tensor], spec_.seed, chunk.first, spec_.type, bytes);
    const int64_t offset =
        chunk.shard->data_start + chunk.shard->offsets[chunk.tensor] + chunk.first * size;
    return chunk.shard->file->WriteAt(offset, bytes.data(), bytes.size());
  }

  // False: stop.
  bool Report(const absl::Status& status, const Chunk& chunk) {
    MutexLock lock(mutex_);
    if (!status.ok() && status_.ok()) status_ = status;
    if (!status_.ok()) return false;
    done_ += chunk.elements * DataTypeBytes(spec_.type);
    if (progress_) progress_(done_, total_);
    return true;
  }

  const SyntheticSpec& spec_;
  const std::vector<Chunk> chunks_;
  const std::function<void(int64_t, int64_t)>& progress_;
  const int64_t total_;
  std::atomic<size_t> next_ = 0;
  Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  int64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

absl::Status FileError(int error, const std::string& what, const std::string& path) {
  const std::string message = absl::StrCat(path, ": ", what, ": ", std::strerror(error));
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    default:
      return absl::FailedPreconditionError(message);
  }
}

absl::Status WriteTextFile(const std::string& path, const std::string& text) {
  ASSIGN_OR_RETURN(const std::unique_ptr<File> file, File::Create(path));
  RETURN_IF_ERROR(file->WriteAt(0, text.data(), text.size()));
  return file->Finish();
}

int64_t WeightBytes(const SyntheticSpec& spec) {
  return ParameterCount(spec.config) * DataTypeBytes(spec.type);
}

absl::Status WriteWeights(const std::string& directory, const SyntheticSpec& spec, int threads,
                          const std::function<void(int64_t done, int64_t total)>& progress) {
  std::vector<Shard> shards = PlanShards(spec);
  for (Shard& shard : shards) RETURN_IF_ERROR(StartShard(directory, spec.type, shard));
  RETURN_IF_ERROR(ChunkWriter(spec, ListChunks(shards), progress).Run(threads));
  for (Shard& shard : shards) RETURN_IF_ERROR(shard.file->Finish());
  if (spec.max_shard_bytes <= 0) return absl::OkStatus();
  return WriteTextFile(directory + "/model.safetensors.index.json", MakeIndex(shards));
}

}  // namespace tarn::engine
