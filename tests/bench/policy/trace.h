#pragma once

// Requests as chains of blocks, from a file or made up by seed: what eviction policies are judged
// on.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tarn {

// One request: the blocks of its prompt, front first. Equal numbers are equal prefixes.
struct TraceRequest {
  absl::Time arrival;
  std::vector<uint32_t> blocks;
};

struct Trace {
  std::string name;
  std::vector<TraceRequest> requests;  // by arrival
  size_t references = 0;               // blocks of all requests
  uint32_t blocks = 0;                 // numbers are below this
};

// As sim::ReadWorkload.
absl::StatusOr<Trace> ReadTrace(const std::string& path);

// Workloads of other shapes, so that nothing is tuned to one file. Equal seeds give equal traces.
//
// Conversations with think times of a minute or so, whose length is geometric.
Trace Chats(uint64_t seed);
// Agents: one long chain each, continued after seconds, that end without warning.
Trace Agents(uint64_t seed);
// Retrieval: a common instruction, a document of Zipf popularity, a question of its own.
Trace Documents(uint64_t seed);
// The same, but which documents are popular changes every few minutes.
Trace ShiftingDocuments(uint64_t seed);
// Batch jobs that read the same prompts in a loop, beside a stream of prompts used once.
Trace LoopsAndScans(uint64_t seed);
// Nothing to learn: each request picks one of many equally likely chains.
Trace Uniform(uint64_t seed);
// Chats, agents, documents and scans at once.
Trace Mixture(uint64_t seed);

std::vector<Trace> MadeUpTraces(uint64_t seed);

}  // namespace tarn
