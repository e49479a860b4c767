#include "engine/factory/model_flags.h"

namespace tarn::engine {

void AddModelFlags(CommandLine& command_line, ModelOptions& options) {
  command_line.Add("--model", options.model, "Hugging Face directory of the model, or \"fake\"");
  command_line.Require("--model");
  command_line.Add("--served-model-name", options.served_name,
                   "Name in requests; default: the directory's last component");
  command_line.Add("--block-tokens", options.block_tokens,
                   "Tokens of a KV block: a power of two, the same on all nodes", {16, 256});
  command_line.Add("--threads", options.threads,
                   "Threads that compute; 0: one for each CPU of the process", {0, 1024});
  command_line.AddChoice("--isa", options.isa,
                         "Instructions of the CPU executor, the same on all nodes",
                         {"auto", "avx2", "avx512", "avx512_bf16"});
}

}  // namespace tarn::engine
