#include "engine/synthetic/synthetic_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "engine/model/weights.h"
#include "engine/synthetic/config_files.h"
#include "engine/synthetic/random_tensor.h"

namespace tarn::engine {
namespace {

namespace fs = std::filesystem;

std::string ReadFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

struct Tensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

// The format as its description has it, without the engine's own reader.
std::map<std::string, Tensor> ReadTensors(const fs::path& path) {
  const std::string file = ReadFile(path);
  uint64_t header_size = 0;
  std::memcpy(&header_size, file.data(), 8);
  EXPECT_EQ(header_size % 8, 0u);
  const nlohmann::json header = nlohmann::json::parse(file.substr(8, header_size));
  std::map<std::string, Tensor> tensors;
  size_t covered = 0;
  for (const auto& [name, json] : header.items()) {
    if (name == "__metadata__") continue;
    const size_t begin = json["data_offsets"][0];
    const size_t end = json["data_offsets"][1];
    covered += end - begin;
    tensors[name] = {json["dtype"], json["shape"],
                     file.substr(8 + header_size + begin, end - begin)};
  }
  EXPECT_EQ(8 + header_size + covered, file.size());
  return tensors;
}

std::vector<float> Values(const Tensor& tensor) {
  std::vector<float> values;
  if (tensor.dtype == "F32") {
    values.resize(tensor.bytes.size() / 4);
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
  }
  for (size_t at = 0; at < tensor.bytes.size(); at += 2) {
    uint16_t bits;
    std::memcpy(&bits, tensor.bytes.data() + at, 2);
    if (tensor.dtype == "BF16") {
      const uint32_t wide = static_cast<uint32_t>(bits) << 16;
      float value;
      std::memcpy(&value, &wide, 4);
      values.push_back(value);
      continue;
    }
    const int exponent = (bits >> 10) & 31;
    const int mantissa = bits & 1023;
    const float magnitude = exponent == 0
                                ? std::ldexp(static_cast<float>(mantissa), -24)
                                : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
    values.push_back((bits & 0x8000) != 0 ? -magnitude : magnitude);
  }
  return values;
}

class SyntheticModel : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "/synthetic.XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  void TearDown() override { fs::remove_all(root_); }

  fs::path Write(const std::string& name, const SyntheticSpec& spec,
                 const WriteModelOptions& options = {}) {
    const absl::Status status = WriteModel((root_ / name).string(), spec, options);
    EXPECT_TRUE(status.ok()) << status;
    return root_ / name;
  }

  int Entries() const {
    return static_cast<int>(std::distance(fs::directory_iterator(root_), fs::directory_iterator()));
  }

  fs::path root_;
};

SyntheticSpec Tiny(const std::string& name = "tiny") {
  auto spec = SyntheticPreset(name);
  EXPECT_TRUE(spec.ok()) << spec.status();
  return *spec;
}

TEST_F(SyntheticModel, ConfigReadsBackAsItWas) {
  SyntheticSpec spec = Tiny();
  spec.config.bos_token_id = 3;
  spec.config.eos_token_ids = {4, 5};
  const fs::path path = Write("a/b/model", spec);
  const auto config = ModelConfig::Parse(ReadFile(path / "config.json"), "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, Architecture::kQwen3);
  EXPECT_EQ(config->hidden_size, 64);
  EXPECT_EQ(config->layers, 2);
  EXPECT_EQ(config->kv_heads, 2);
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->rope_theta, 1e6);
  EXPECT_EQ(config->rms_norm_eps, 1e-6);
  EXPECT_TRUE(config->tie_word_embeddings);
  EXPECT_EQ(config->bos_token_id, 3);
  EXPECT_EQ(config->eos_token_ids, (std::vector<TokenId>{4, 5}));
  const auto generation = nlohmann::json::parse(ReadFile(path / "generation_config.json"));
  EXPECT_EQ(generation["eos_token_id"], nlohmann::json::parse("[4, 5]"));
}

TEST_F(SyntheticModel, RopeScalingReadsBack) {
  using Kind = RopeScaling::Kind;
  const std::vector<RopeScaling> table = {
      {},
      {.kind = Kind::kLinear, .factor = 4},
      {.kind = Kind::kLlama3, .factor = 8, .original_max_position = 2048, .high_freq_factor = 3},
      {.kind = Kind::kYarn,
       .factor = 2,
       .original_max_position = 2048,
       .beta_fast = 16,
       .attention_factor = 1.5,
       .truncate = false},
  };
  for (const RopeScaling& scaling : table) {
    SyntheticSpec spec = Tiny();
    spec.config.rope_scaling = scaling;
    const auto config = ModelConfig::Parse(MakeConfigJson(spec), "config.json");
    ASSERT_TRUE(config.ok()) << config.status();
    const RopeScaling& read = config->rope_scaling;
    EXPECT_EQ(read.kind, scaling.kind);
    EXPECT_EQ(read.factor, scaling.factor);
    EXPECT_EQ(read.original_max_position, scaling.original_max_position);
    EXPECT_EQ(read.high_freq_factor, scaling.high_freq_factor);
    EXPECT_EQ(read.beta_fast, scaling.beta_fast);
    EXPECT_EQ(read.attention_factor, scaling.attention_factor);
    EXPECT_EQ(read.truncate, scaling.truncate);
    EXPECT_EQ(config->max_position, 4096);
  }
}

TEST_F(SyntheticModel, TensorsHaveTheShapesOfTheArchitecture) {
  const auto qwen = ReadTensors(Write("qwen", Tiny()) / "model.safetensors");
  EXPECT_EQ(qwen.size(), 2u + 2 * 11);
  EXPECT_FALSE(qwen.contains("lm_head.weight"));
  EXPECT_EQ(qwen.at("model.embed_tokens.weight").shape, (std::vector<int64_t>{2048, 64}));
  EXPECT_EQ(qwen.at("model.layers.1.self_attn.k_proj.weight").shape,
            (std::vector<int64_t>{32, 64}));
  EXPECT_EQ(qwen.at("model.layers.1.self_attn.q_norm.weight").shape, (std::vector<int64_t>{16}));
  EXPECT_EQ(qwen.at("model.layers.0.mlp.down_proj.weight").shape, (std::vector<int64_t>{64, 192}));
  const auto llama = ReadTensors(Write("llama", Tiny("tiny-llama")) / "model.safetensors");
  EXPECT_EQ(llama.size(), 3u + 2 * 9);
  EXPECT_EQ(llama.at("lm_head.weight").shape, (std::vector<int64_t>{2048, 64}));
  EXPECT_FALSE(llama.contains("model.layers.0.self_attn.q_norm.weight"));
  SyntheticSpec biased = Tiny("tiny-llama");
  biased.config.attention_bias = true;
  EXPECT_EQ(ReadTensors(Write("biased", biased) / "model.safetensors").size(), 3u + 2 * 13);
}

// The engine's own reader accepts it.
TEST_F(SyntheticModel, OpensAndBinds) {
  for (const int64_t shard : {0, 100'000}) {
    SyntheticSpec spec = Tiny("tiny-llama");
    spec.max_shard_bytes = shard;
    const fs::path path = Write("model" + std::to_string(shard), spec);
    const auto files = TensorFiles::Open(path.string());
    ASSERT_TRUE(files.ok()) << files.status();
    int64_t elements = 0;
    for (const auto& [name, view] : (*files)->tensors()) elements += view.bytes / 2;
    EXPECT_EQ(elements, ParameterCount(spec.config));
    const auto weights = BindWeights(spec.config, **files);
    EXPECT_TRUE(weights.ok()) << weights.status();
  }
}

TEST_F(SyntheticModel, WeightsHaveTheirScale) {
  SyntheticSpec spec = Tiny();
  spec.type = DataType::kF32;
  const auto tensors = ReadTensors(Write("model", spec) / "model.safetensors");
  for (const RandomTensor& expected : ListTensors(spec.config)) {
    const std::vector<float> values = Values(tensors.at(expected.name));
    double sum = 0;
    double squares = 0;
    for (const float value : values) {
      sum += value;
      squares += (value - expected.mean) * (value - expected.mean);
    }
    const double count = static_cast<double>(values.size());
    EXPECT_NEAR(sum / count, expected.mean, 5 * expected.deviation / std::sqrt(count));
    EXPECT_NEAR(std::sqrt(squares / count) / expected.deviation, 1, 5 / std::sqrt(count));
  }
}

TEST_F(SyntheticModel, TypesRoundTheSameWeights) {
  SyntheticSpec spec = Tiny();
  spec.type = DataType::kF32;
  const auto exact = ReadTensors(Write("f32", spec) / "model.safetensors");
  for (const auto& [type, error] :
       {std::pair(DataType::kBf16, 0x1p-8), std::pair(DataType::kF16, 0x1p-11)}) {
    spec.type = type;
    const auto rounded =
        ReadTensors(Write(std::string(DataTypeName(type)), spec) / "model.safetensors");
    for (const auto& [name, tensor] : rounded) {
      const std::vector<float> a = Values(tensor);
      const std::vector<float> b = Values(exact.at(name));
      ASSERT_EQ(a.size(), b.size());
      for (size_t i = 0; i < a.size(); ++i) {
        ASSERT_LE(std::fabs(a[i] - b[i]), std::fabs(b[i]) * error + 0x1p-25) << name << " " << i;
      }
    }
  }
}

TEST_F(SyntheticModel, SeedDecidesEverythingElseNothing) {
  SyntheticSpec spec = Tiny();
  WriteModelOptions options{.threads = 1};
  const std::string first = ReadFile(Write("first", spec, options) / "model.safetensors");
  options.threads = 4;
  EXPECT_EQ(ReadFile(Write("again", spec, options) / "model.safetensors"), first);
  spec.seed = 2;
  EXPECT_NE(ReadFile(Write("other", spec) / "model.safetensors"), first);
}

TEST_F(SyntheticModel, ShardsHoldTheSameTensors) {
  SyntheticSpec spec = Tiny();
  const auto whole = ReadTensors(Write("whole", spec) / "model.safetensors");
  spec.max_shard_bytes = 60'000;
  const fs::path path = Write("shards", spec);
  EXPECT_FALSE(fs::exists(path / "model.safetensors"));
  const auto index = nlohmann::json::parse(ReadFile(path / "model.safetensors.index.json"));
  EXPECT_EQ(index["metadata"]["total_size"], 2 * ParameterCount(spec.config));
  std::map<std::string, Tensor> all;
  std::set<std::string> names;
  for (const auto& [tensor, file] : index["weight_map"].items()) names.insert(file);
  EXPECT_GT(names.size(), 3u);
  for (const std::string& name : names) {
    std::map<std::string, Tensor> shard = ReadTensors(path / name);
    size_t bytes = 0;
    for (const auto& [tensor, value] : shard) {
      EXPECT_EQ(index["weight_map"][tensor], name);
      bytes += value.bytes.size();
    }
    EXPECT_TRUE(bytes <= 60'000 || shard.size() == 1) << name;
    all.merge(shard);
  }
  ASSERT_EQ(all.size(), whole.size());
  for (const auto& [name, tensor] : whole) EXPECT_EQ(all.at(name).bytes, tensor.bytes) << name;
}

TEST_F(SyntheticModel, ElementsDoNotDependOnTheChunk) {
  const RandomTensor tensor{"x", {1000}, 0, 1};
  std::vector<std::byte> whole(4000);
  FillTensor(tensor, 5, 0, DataType::kF32, whole);
  std::vector<std::byte> part(400);
  FillTensor(tensor, 5, 321, DataType::kF32, part);
  EXPECT_EQ(std::memcmp(part.data(), whole.data() + 321 * 4, part.size()), 0);
}

TEST_F(SyntheticModel, UnusedTokensAreQuiet) {
  SyntheticSpec spec = Tiny("tiny-llama");
  spec.type = DataType::kF32;
  spec.used_vocab = 100;
  const auto tensors = ReadTensors(Write("model", spec) / "model.safetensors");
  const auto largest = [&](const char* name, int from, int to) {
    const std::vector<float> values = Values(tensors.at(name));
    float result = 0;
    for (int i = from * 64; i < to * 64; ++i) result = std::max(result, std::fabs(values[i]));
    return result;
  };
  EXPECT_LT(largest("lm_head.weight", 100, 2048), 0.05 * largest("lm_head.weight", 0, 100));
  EXPECT_GT(largest("model.embed_tokens.weight", 100, 2048), 1);
}

TEST_F(SyntheticModel, ProgressEndsAtTheTotal) {
  SyntheticSpec spec = Tiny();
  std::vector<int64_t> seen;
  int64_t total = 0;
  WriteModelOptions options;
  options.progress = [&](int64_t done, int64_t all) {
    seen.push_back(done);
    total = all;
  };
  Write("model", spec, options);
  EXPECT_EQ(total, 2 * ParameterCount(spec.config));
  EXPECT_EQ(seen.back(), total);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

TEST_F(SyntheticModel, ExistingFilesAreKept) {
  const fs::path path = Write("model", Tiny());
  const absl::Status again = WriteModel(path.string(), Tiny());
  EXPECT_TRUE(absl::IsAlreadyExists(again)) << again;
  std::ofstream(path / "stale") << "x";
  EXPECT_EQ(Write("model", Tiny(), {.overwrite = true}), path);
  EXPECT_FALSE(fs::exists(path / "stale"));
  EXPECT_EQ(Entries(), 1);
}

TEST_F(SyntheticModel, OverwritesOnlyModels) {
  fs::create_directory(root_ / "letters");
  std::ofstream(root_ / "letters" / "dear") << "x";
  std::ofstream(root_ / "file") << "x";
  for (const char* name : {"letters", "file"}) {
    const absl::Status status = WriteModel((root_ / name).string(), Tiny(), {.overwrite = true});
    EXPECT_TRUE(absl::IsAlreadyExists(status)) << status;
  }
  EXPECT_TRUE(fs::exists(root_ / "letters" / "dear"));
  fs::create_directory(root_ / "empty");
  Write("empty/", Tiny());
  EXPECT_TRUE(fs::exists(root_ / "empty" / "config.json"));
}

TEST_F(SyntheticModel, FailureLeavesNothing) {
  const fs::path old = Write("old", Tiny());
  const std::string before = ReadFile(old / "config.json");
  WriteModelOptions options{.overwrite = true};
  options.add_files = [](const std::string&) { return absl::UnavailableError("no tokenizer"); };
  EXPECT_EQ(WriteModel(old.string(), Tiny("tiny-llama"), options),
            absl::UnavailableError("no tokenizer"));
  EXPECT_EQ(WriteModel((root_ / "new").string(), Tiny(), options).code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReadFile(old / "config.json"), before);
  EXPECT_EQ(Entries(), 1);
}

TEST_F(SyntheticModel, AddedFilesArePartOfTheModel) {
  WriteModelOptions options;
  options.add_files = [](const std::string& directory) {
    std::ofstream(directory + "/tokenizer.json") << "{}";
    return absl::OkStatus();
  };
  EXPECT_EQ(ReadFile(Write("model", Tiny(), options) / "tokenizer.json"), "{}");
}

TEST_F(SyntheticModel, ErrorsSayWhat) {
  const auto message = [&](auto change) {
    SyntheticSpec spec = Tiny();
    change(spec);
    return Message(WriteModel((root_ / "model").string(), spec));
  };
  const auto has = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_TRUE(has(message([](auto& s) { s.config.kv_heads = 3; }), "num_key_value_heads"));
  EXPECT_TRUE(has(message([](auto& s) { s.config.head_dim = 15; }), "head_dim"));
  EXPECT_TRUE(has(message([](auto& s) { s.config.vocab_size = 0; }), "vocab_size"));
  EXPECT_TRUE(has(message([](auto& s) { s.max_shard_bytes = -1; }), "max_shard_bytes"));
  EXPECT_TRUE(has(message([](auto& s) { s.used_vocab = 2049; }), "used_vocab"));
  // 2^20 rows of 2^20, times 3 and 2 layers: 12 TiB.
  const absl::Status full = WriteModel((root_ / "model").string(), [] {
    SyntheticSpec spec = Tiny();
    spec.config.hidden_size = 1 << 20;
    spec.config.intermediate_size = 1 << 20;
    return spec;
  }());
  EXPECT_TRUE(absl::IsResourceExhausted(full)) << full;
  std::ofstream(root_ / "file") << "x";
  const absl::Status under_file = WriteModel((root_ / "file" / "model").string(), Tiny());
  EXPECT_FALSE(under_file.ok());
  EXPECT_TRUE(has(Message(under_file), "file")) << under_file;
  EXPECT_EQ(Entries(), 1);
}

TEST_F(SyntheticModel, PresetsAreThePublicShapes) {
  const std::map<std::string, int64_t> parameters = {
      {"qwen3-0.6b", 596049920},   {"qwen3-1.7b", 1720574976}, {"qwen3-8b", 8190735360},
      {"llama3.2-1b", 1235814400}, {"llama3-8b", 8030261248},
  };
  for (const auto& [name, count] : parameters) {
    EXPECT_EQ(ParameterCount(Tiny(name).config), count) << name;
  }
  const int64_t demo = ParameterCount(Tiny("demo").config);
  EXPECT_GT(demo, 20'000'000);
  EXPECT_LT(demo, 30'000'000);
  for (const std::string& name : SyntheticPresetNames()) {
    const auto config = ModelConfig::Parse(MakeConfigJson(Tiny(name)), name);
    EXPECT_TRUE(config.ok()) << config.status();
  }
  EXPECT_NE(Message(SyntheticPreset("gpt-5").status()).find("qwen3-0.6b"), std::string::npos);
}

}  // namespace
}  // namespace tarn::engine
