#include "prefill_node/server/prefill_config.h"

#include "common/base/status.h"
#include "engine/factory/model_flags.h"
#include "engine/wire/convert.h"

namespace tarn::prefill {
void AddFlags(CommandLine& command_line, PrefillConfig& config) {
  AddServerFlags(command_line, config.server);
  engine::AddModelFlags(command_line, config.model);
  kvstore::AddPoolFlags(command_line, config.pool);
  command_line.AddBytes("--kv-memory", config.kv_memory, "Memory for the KV of running requests");
  command_line.Add("--drain-timeout", config.drain_timeout,
                   "How long SIGTERM waits for running requests; the rest goes on at other nodes");
  command_line.Add("--chunk-tokens", config.sessions.batching.chunk_tokens,
                   "New tokens of one step, over all its prompts", {1, 1 << 20});
  command_line.Add("--max-batch", config.sessions.batching.max_running,
                   "Prompts fetched or computed at a time", {1, 4096});
  command_line.Add("--max-queue", config.sessions.batching.max_waiting,
                   "Prompts that may wait; more are refused", {1, 1 << 20});
}

absl::StatusOr<kvstore::PoolNodeOptions> PoolOptionsFrom(const PrefillConfig& config,
                                                         const engine::OpenedModel& model) {
  ASSIGN_OR_RETURN(kvstore::PoolNodeOptions options,
                   kvstore::PoolOptionsFrom(config.pool, config.server));
  options.role = v1::ROLE_PREFILL;
  options.model = engine::DescriptorOf(model.info(), model.layout());
  ASSIGN_OR_RETURN(options.hbm_pages, engine::PagesIn(config.kv_memory, model.layout()));
  return options;
}

}  // namespace tarn::prefill
