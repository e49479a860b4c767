#include "decode_node/server/decode_config.h"

#include "common/base/status.h"
#include "engine/factory/model_flags.h"
#include "engine/wire/convert.h"

namespace tarn::decode {
void AddFlags(CommandLine& command_line, DecodeConfig& config) {
  AddServerFlags(command_line, config.server);
  engine::AddModelFlags(command_line, config.model);
  kvstore::AddPoolFlags(command_line, config.pool);
  command_line.AddBytes("--kv-memory", config.kv_memory, "Memory for the KV of running requests");
  command_line.Add("--drain-timeout", config.drain_timeout,
                   "How long SIGTERM waits for running requests; the rest goes on at other nodes");
  command_line.Add("--max-batch", config.sessions.scheduling.max_batch,
                   "Sequences that run or wait for their KV; more are refused", {1, 4096});
  command_line.Add("--chunk-tokens", config.sessions.scheduling.catch_up_tokens,
                   "Tokens of lost KV that one step computes", {1, 1 << 20});
}

absl::StatusOr<kvstore::PoolNodeOptions> PoolOptionsFrom(const DecodeConfig& config,
                                                         const engine::OpenedModel& model) {
  ASSIGN_OR_RETURN(kvstore::PoolNodeOptions options,
                   kvstore::PoolOptionsFrom(config.pool, config.server));
  options.role = v1::ROLE_DECODE;
  options.model = engine::DescriptorOf(model.info(), model.layout());
  ASSIGN_OR_RETURN(options.hbm_pages, engine::PagesIn(config.kv_memory, model.layout()));
  return options;
}

}  // namespace tarn::decode
