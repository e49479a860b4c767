// How a trained tokenizer is written down.

#include <glog/logging.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/text/bpe_trainer.h"
#include "engine/text/chat_forms.h"

namespace tarn::engine {
namespace {

using nlohmann::ordered_json;

ordered_json AddedTokens(const TrainedTokenizer& tokenizer) {
  ordered_json list = ordered_json::array();
  auto id = static_cast<TokenId>(tokenizer.vocab.size());
  for (const std::string& content : tokenizer.special_tokens) {
    list.push_back({{"id", id++},
                    {"content", content},
                    {"single_word", false},
                    {"lstrip", false},
                    {"rstrip", false},
                    {"normalized", false},
                    {"special", true}});
  }
  return list;
}

ordered_json ByteLevel(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", false},
          {"use_regex", use_regex}};
}

ordered_json PreTokenizer(ChatForm form) {
  const ordered_json split = {{"type", "Split"},
                              {"pattern", {{"Regex", SplitPattern(form)}}},
                              {"behavior", "Isolated"},
                              {"invert", false}};
  ordered_json list = ordered_json::array();
  list.push_back(split);
  list.push_back(ByteLevel(false));
  return {{"type", "Sequence"}, {"pretokenizers", std::move(list)}};
}

TokenId IdOfSpecial(const TrainedTokenizer& tokenizer, const std::string& name) {
  for (size_t i = 0; i < tokenizer.special_tokens.size(); ++i) {
    if (tokenizer.special_tokens[i] == name)
      return static_cast<TokenId>(tokenizer.vocab.size() + i);
  }
  LOG(FATAL) << "no special token " << name;
}

// Puts the bos token in front, as Llama 3's does. Every list is made by name: nlohmann takes a
// braced list of two for an object's member wherever it can.
ordered_json BosTemplate(const TrainedTokenizer& tokenizer, const std::string& bos) {
  const auto item = [](const char* kind, const std::string& id, int type_id) {
    ordered_json value;
    value[kind] = {{"id", id}, {"type_id", type_id}};
    return value;
  };
  ordered_json special;
  special["id"] = bos;
  special["ids"] = ordered_json::array({IdOfSpecial(tokenizer, bos)});
  special["tokens"] = ordered_json::array({bos});

  ordered_json result;
  result["type"] = "TemplateProcessing";
  result["single"] = ordered_json::array({item("SpecialToken", bos, 0), item("Sequence", "A", 0)});
  result["pair"] = ordered_json::array({item("SpecialToken", bos, 0), item("Sequence", "A", 0),
                                        item("SpecialToken", bos, 1), item("Sequence", "B", 1)});
  result["special_tokens"][bos] = std::move(special);
  return result;
}

ordered_json Model(const TrainedTokenizer& tokenizer) {
  ordered_json model;
  model["type"] = "BPE";
  for (const char* absent :
       {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    model[absent] = nullptr;
  }
  model["fuse_unk"] = false;
  model["byte_fallback"] = false;
  model["ignore_merges"] = IgnoresMerges(tokenizer.form);
  // nlohmann's ordered objects are lists: assigning by name would search each time.
  auto& vocab = (model["vocab"] = ordered_json::object()).get_ref<ordered_json::object_t&>();
  for (size_t id = 0; id < tokenizer.vocab.size(); ++id) {
    vocab.push_back({tokenizer.vocab[id], ordered_json(id)});
  }
  ordered_json& merges = model["merges"] = ordered_json::array();
  for (const auto& [left, right] : tokenizer.merges) {
    merges.push_back(ordered_json::array({left, right}));
  }
  return model;
}

absl::Status WriteFile(const std::string& path, const std::string& contents) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << contents;
  file.close();
  if (!file) return absl::UnavailableError(absl::StrCat("cannot write ", path));
  return absl::OkStatus();
}

}  // namespace

TokenId TrainedTokenizer::eos() const { return IdOfSpecial(*this, EosToken(form)); }

std::string TokenizerJson(const TrainedTokenizer& tokenizer) {
  const std::string bos = BosToken(tokenizer.form);
  ordered_json root;
  root["version"] = "1.0";
  root["truncation"] = nullptr;
  root["padding"] = nullptr;
  root["added_tokens"] = AddedTokens(tokenizer);
  root["normalizer"] = nullptr;
  if (UsesNfc(tokenizer.form)) root["normalizer"] = {{"type", "NFC"}};
  root["pre_tokenizer"] = PreTokenizer(tokenizer.form);
  root["post_processor"] = bos.empty() ? ByteLevel(false) : BosTemplate(tokenizer, bos);
  root["decoder"] = ByteLevel(false);
  root["model"] = Model(tokenizer);
  return root.dump(1);
}

std::string TokenizerConfigJson(const TrainedTokenizer& tokenizer) {
  const std::string bos = BosToken(tokenizer.form);
  ordered_json root;
  root["tokenizer_class"] = "PreTrainedTokenizerFast";
  root["bos_token"] = bos.empty() ? ordered_json(nullptr) : ordered_json(bos);
  root["eos_token"] = EosToken(tokenizer.form);
  root["pad_token"] = PadToken(tokenizer.form);
  root["clean_up_tokenization_spaces"] = false;
  root["chat_template"] = JinjaTemplate(tokenizer.form);
  return root.dump(1);
}

absl::Status WriteTokenizerFiles(const std::string& directory, const TrainedTokenizer& tokenizer) {
  RETURN_IF_ERROR(WriteFile(directory + "/tokenizer.json", TokenizerJson(tokenizer)));
  return WriteFile(directory + "/tokenizer_config.json", TokenizerConfigJson(tokenizer));
}

}  // namespace tarn::engine
