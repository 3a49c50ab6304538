#include "doctor/report.h"

#include <string>

#include "observe/host.h"

namespace steelyard::doctor {
namespace {

using Json = nlohmann::ordered_json;

// null where it isn't known.
Json known(double value) { return value > 0 ? Json(value) : Json(); }

Json step_json(const DeviceFacts& d) {
  Json lines = Json::array();
  for (const StepLine& l : d.step)
    lines.push_back({{"part", part_name(l.part)},
                     {"bytes", l.bytes},
                     {"seconds", l.seconds},
                     {"bytes_per_second", l.bytes > 0 ? known(l.rate()) : Json()},
                     {"limit_bytes_per_second", known(l.limit)}});
  return lines;
}

Json others_json(const std::vector<OtherProcess>& list) {
  Json all = Json::array();
  for (const OtherProcess& p : list)
    all.push_back({{"name", p.name}, {"bytes", p.bytes}, {"cores", p.cores}});
  return all;
}

Json health_json(const GpuHealth& h) {
  return {{"celsius", h.celsius},
          {"watts", h.watts},
          {"watts_limit", h.watts_limit},
          {"watts_default", h.watts_default},
          {"clock_mhz", h.clock_mhz},
          {"clock_most_mhz", h.clock_most_mhz},
          {"power_capped", h.power_capped},
          {"too_hot", h.too_hot},
          {"clocks_set", h.clocks_set},
          {"link_generation", h.link_generation},
          {"link_generation_most", h.link_generation_most},
          {"link_width", h.link_width},
          {"link_width_most", h.link_width_most}};
}

Json device_json(const DeviceFacts& d) {
  Json holds = Json::object();
  for (const auto& [purpose, bytes] : d.holds) holds[purpose] = bytes;
  return {{"device", d.id},
          {"name", d.name},
          {"memory_bytes", d.memory},
          {"free_bytes", d.free},
          {"holds", std::move(holds)},
          {"read_weights_bytes", d.read_weights},
          {"read_kv_bytes", d.read_kv},
          {"read_bytes_per_second", known(d.read_rate)},
          {"read_rate_is_nominal", d.nominal},
          {"step", step_json(d)},
          {"health", d.health ? health_json(*d.health) : Json()},
          {"others", others_json(d.others)}};
}

Json host_json(const HostFacts& h) {
  return {{"cpu", h.cpu},
          {"cores", h.cores},
          {"physical_cores", h.physical},
          {"usable_cores", h.usable},
          {"quota_cores", known(h.quota)},
          {"numa_nodes", h.numa_nodes},
          {"memory_bytes", h.memory},
          {"available_bytes", h.available},
          {"memory_limit_bytes", known(static_cast<double>(h.memory_limit))},
          {"swap_bytes", h.swap},
          {"swap_used_bytes", h.swap_used},
          {"governor", h.governor}};
}

Json machine_json(const Facts& f) {
  Json m = Json::object();
  m["host"] = f.host ? host_json(*f.host) : Json();
  m["run"] =
      !f.run ? Json() : Json{{"seconds", f.run->seconds},           {"own_cores", f.run->own_cores},
                             {"other_cores", f.run->other_cores},   {"throttled_seconds", f.run->throttled},
                             {"major_faults", f.run->major_faults}, {"swapped_bytes", f.run->swapped}};
  m["busy"] = others_json(f.busy);
  m["file"] = !f.file
                  ? Json()
                  : Json{{"bytes", f.file->bytes},     {"file_system", f.file->system},
                         {"network", f.file->network}, {"spinning", f.file->spinning},
                         {"cached", f.file->cached},   {"disk_bytes_per_second", known(f.file->read_rate)}};
  m["no_gpu"] = f.no_gpu;
  m["driver"] = f.driver;
  return m;
}

Json finding_json(const Finding& x) {
  Json flags = Json::object();
  for (const auto& [flag, value] : x.flags) flags[flag] = value;
  return {{"cause", info(x.cause).name},
          {"title", info(x.cause).title},
          {"evidence", x.evidence},
          {"change", x.change},
          {"flags", std::move(flags)},
          {"predicted_tokens_per_second", known(x.predicted)},
          {"at_most", x.at_most},
          {"of_all_conversations", x.together},
          {"price", x.price}};
}

}  // namespace

Json to_json(const Facts& f, const std::vector<Finding>& findings) {
  const double limit = limit_seconds(f);
  Json devices = Json::array(), links = Json::array(), found = Json::array();
  for (const DeviceFacts& d : f.devices) devices.push_back(device_json(d));
  for (const LinkFacts& l : f.links)
    links.push_back({{"from", l.from},
                     {"to", l.to},
                     {"way", l.way},
                     {"peer", l.peer},
                     {"measured_bytes_per_second", known(l.measured)},
                     {"used_bytes", l.used_bytes}});
  for (const Finding& x : findings) found.push_back(finding_json(x));
  return {{"model", redacted(f.model)},
          {"engine", engine_name(f.engine)},
          {"headline", headline(f, findings)},
          {"tokens_per_second", known(f.tokens_per_second)},
          {"prompt_tokens_per_second", known(f.prompt_tokens_per_second)},
          {"spread", f.spread},
          {"limit_tokens_per_second", limit > 0 ? Json(1 / limit) : Json()},
          {"achieved_over_limit", known(std::min(1.0, f.tokens_per_second * limit))},
          {"split", f.split == Split::one      ? "one"
                    : f.split == Split::stages ? "stages"
                                               : "ranks"},
          {"layers", f.layers},
          {"layers_on_gpu", f.layers_on_gpu},
          {"context", f.context},
          {"depth", f.depth},
          {"kv_type", f.kv_type},
          {"threads", f.threads},
          {"devices", std::move(devices)},
          {"links", std::move(links)},
          {"machine", machine_json(f)},
          {"findings", std::move(found)},
          {"exit_code", exit_code(findings)}};
}

}  // namespace steelyard::doctor
