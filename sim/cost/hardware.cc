#include "sim/cost/hardware.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tarn::sim {
namespace {

struct NumberField {
  const char* name;
  double HardwareProfile::*field;
  bool must_be_positive = false;
};

const std::vector<NumberField>& NumberFields() {
  using P = HardwareProfile;
  static const auto* const kFields = new std::vector<NumberField>{
      {"flops_per_s", &P::flops_per_s, true},
      {"model_efficiency", &P::model_efficiency, true},
      {"memory_bytes_per_s", &P::memory_bytes_per_s, true},
      {"memory_bytes", &P::memory_bytes, true},
      {"memory_for_kv", &P::memory_for_kv, true},
      {"gpu_link_bytes_per_s", &P::gpu_link_bytes_per_s},
      {"step_overhead_us", &P::step_overhead_us},
      {"layer_sync_us", &P::layer_sync_us},
      {"network_bytes_per_s", &P::network_bytes_per_s, true},
      {"host_bytes_per_s", &P::host_bytes_per_s, true},
      {"dram_bytes", &P::dram_bytes},
      {"ssd_bytes", &P::ssd_bytes},
      {"ssd_read_bytes_per_s", &P::ssd_read_bytes_per_s},
      {"dollars_per_hour", &P::dollars_per_hour},
  };
  return *kFields;
}

// One H200 on an eighth of its usual node.
HardwareProfile H200() {
  return {.name = "h200",
          .gpus = 1,
          .flops_per_s = 790e12,
          .model_efficiency = 0.65,
          .memory_bytes_per_s = 4.3e12,
          .memory_bytes = 141e9,
          .gpu_link_bytes_per_s = 360e9,
          .step_overhead_us = 500,
          .layer_sync_us = 10,
          .network_bytes_per_s = 46e9,
          .host_bytes_per_s = 50e9,
          .dram_bytes = 200e9,
          .ssd_bytes = 4e12,
          .ssd_read_bytes_per_s = 6e9,
          .dollars_per_hour = 3.5};
}

HardwareProfile Eight(HardwareProfile one, const char* name) {
  one.name = name;
  one.gpus = 8;
  one.network_bytes_per_s *= 8;
  one.host_bytes_per_s *= 8;
  one.dram_bytes *= 8;
  one.ssd_bytes *= 8;
  one.ssd_read_bytes_per_s *= 8;
  one.dollars_per_hour *= 8;
  return one;
}

HardwareProfile H100x8() {
  HardwareProfile profile = H200();
  profile.memory_bytes_per_s = 3.0e12;
  profile.memory_bytes = 80e9;
  profile.dollars_per_hour = 2.5;
  return Eight(profile, "h100x8");
}

// The testbed of the Mooncake paper.
HardwareProfile A800x8() {
  return {.name = "a800x8",
          .gpus = 8,
          .flops_per_s = 250e12,
          .model_efficiency = 0.65,
          .memory_bytes_per_s = 1.83e12,
          .memory_bytes = 80e9,
          .gpu_link_bytes_per_s = 160e9,
          .step_overhead_us = 500,
          .layer_sync_us = 10,
          .network_bytes_per_s = 92e9,
          .host_bytes_per_s = 8 * 25e9,
          .dram_bytes = 1e12,
          .ssd_bytes = 0,
          .ssd_read_bytes_per_s = 0,
          .dollars_per_hour = 8 * 1.3};
}

HardwareProfile Cpu() {
  return {.name = "cpu",
          .gpus = 1,
          .flops_per_s = 330e9,
          .model_efficiency = 0.26,
          .memory_bytes_per_s = 10.7e9,
          .memory_bytes = 24e9,
          .memory_for_kv = 0.5,
          .step_overhead_us = 1000,
          .network_bytes_per_s = 1e9,
          .host_bytes_per_s = 10e9,
          .dram_bytes = 8e9,
          .ssd_bytes = 50e9,
          .ssd_read_bytes_per_s = 2e9,
          .dollars_per_hour = 0.1};
}

absl::Status ReadField(const std::string& name, const nlohmann::json& value,
                       HardwareProfile* profile) {
  const auto wrong = [&name](const char* what) {
    return absl::InvalidArgumentError(absl::StrCat("hardware profile: ", name, ": ", what));
  };
  if (name == "name") {
    if (!value.is_string()) return wrong("is not a string");
    profile->name = value.get<std::string>();
    return absl::OkStatus();
  }
  if (!value.is_number()) return wrong("is not a number, or no field of a profile");
  if (name == "gpus") {
    profile->gpus = value.get<int>();
    return absl::OkStatus();
  }
  for (const NumberField& field : NumberFields()) {
    if (name != field.name) continue;
    profile->*field.field = value.get<double>();
    return absl::OkStatus();
  }
  return wrong("is no field of a profile");
}

absl::Status Check(const HardwareProfile& profile) {
  if (profile.gpus < 1) return absl::InvalidArgumentError("hardware profile: gpus: below 1");
  for (const NumberField& field : NumberFields()) {
    const double value = profile.*field.field;
    if (value > 0 || (value == 0 && !field.must_be_positive)) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "hardware profile: ", field.name, ": is ", value,
        field.must_be_positive ? ", and must be above 0" : ", and must not be below 0"));
  }
  return absl::OkStatus();
}

}  // namespace

const std::vector<HardwareProfile>& KnownHardware() {
  static const auto* const kProfiles =
      new std::vector<HardwareProfile>{H200(), Eight(H200(), "h200x8"), H100x8(), A800x8(), Cpu()};
  return *kProfiles;
}

absl::StatusOr<HardwareProfile> FindHardware(const std::string& name) {
  std::string known;
  for (const HardwareProfile& profile : KnownHardware()) {
    if (profile.name == name) return profile;
    absl::StrAppend(&known, known.empty() ? "" : ", ", profile.name);
  }
  return absl::NotFoundError("no hardware profile \"" + name + "\"; known: " + known);
}

std::string ToJson(const HardwareProfile& profile) {
  nlohmann::ordered_json json;
  json["name"] = profile.name;
  json["gpus"] = profile.gpus;
  for (const NumberField& field : NumberFields()) json[field.name] = profile.*field.field;
  return json.dump(2);
}

absl::StatusOr<HardwareProfile> ParseHardware(const std::string& text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError("hardware profile: is not a JSON object");
  }
  HardwareProfile profile;
  for (const auto& [name, value] : json.items()) {
    if (absl::Status status = ReadField(name, value, &profile); !status.ok()) return status;
  }
  if (absl::Status status = Check(profile); !status.ok()) return status;
  return profile;
}

}  // namespace tarn::sim
