// Causes that lie in what is where: layers, heads and KV state on slow memory, devices that take turns,
// links.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "base/units.h"
#include "doctor/rules.h"
#include "plan/fleet.h"
#include "plan/speed.h"

namespace steelyard::doctor {
namespace {

// What kernels usually reach of a card's nominal bandwidth in decode.
constexpr double kUsualShare = 0.65;
// Of an 8-bit cache against a 16-bit one.
constexpr double kQ8OfF16 = 8.5 / 16;
constexpr double kUneven = 1.5;  // rates that differ by more aren't alike
constexpr int kLeastDriver = 580;

const DeviceFacts* fastest_gpu(const Facts& f) {
  const DeviceFacts* best = nullptr;
  for (const DeviceFacts* g : f.gpus())
    if (!best || g->read_rate > best->read_rate) best = g;
  return best;
}

// Bytes that a device reads for each token and a GPU would read faster; the embedding, of which a token reads
// one row, isn't among them.
double on_host(const Facts& f) {
  const DeviceFacts* host = f.host_device();
  return host ? host->reads() : 0;
}

// Of a token's time, the CPU's; by what is left over where it wasn't measured.
double host_seconds(const Facts& f) {
  const DeviceFacts* host = f.host_device();
  if (!host) return 0;
  if (!host->step.empty()) return host->busy();
  double gpus = 0;
  for (const DeviceFacts* g : f.gpus())
    if (g->read_rate > 0) gpus += g->reads() / (g->read_rate * kUsualShare);
  return std::max(0.0, token_seconds(f) - gpus);
}

// A token's time with what the CPU has on the fastest GPU.
double without_host(const Facts& f) {
  const DeviceFacts* gpu = fastest_gpu(f);
  if (!gpu || gpu->read_rate <= 0) return 0;
  const double moved = on_host(f) / (gpu->read_rate * kUsualShare);
  if (token_seconds(f) > 0) return token_seconds(f) - host_seconds(f) + moved;
  double sum = moved;
  for (const DeviceFacts* g : f.gpus())
    if (g->reads() > 0) sum += g->reads() / (g->read_rate * kUsualShare);
  return sum;
}

std::uint64_t free_on_gpus(const Facts& f) {
  std::uint64_t sum = 0;
  for (const DeviceFacts* g : f.gpus()) sum += g->free;
  return sum;
}

std::uint64_t kv_on_gpus(const Facts& f) {
  std::uint64_t sum = 0;
  for (const DeviceFacts* g : f.gpus())
    if (const auto kv = g->holds.find("KV state"); kv != g->holds.end()) sum += kv->second;
  return sum;
}

bool some_on_gpu(const Facts& f) { return f.layers_on_gpu > 0 && !f.gpus().empty(); }
bool layers_missing(const Facts& f) { return some_on_gpu(f) && f.layers_on_gpu + 1 < f.layers; }

std::string time_text(const Facts& f) {
  const double host = host_seconds(f), all = token_seconds(f);
  if (host <= 0 || all <= 0) return "";
  return fmt::format(" and take about {:.0f} % of a token's time", 100 * std::min(1.0, host / all));
}

std::string layers_setting(const Facts& f, bool room) {
  const std::string all = std::to_string(f.layers);
  if (room)
    return setting(f, "leave --device, --placement and --memory out",
                   "PARAMETER num_gpu " + all + " in the Modelfile, or \"num_gpu\" in the request's options",
                   "--gpu-layers " + all);
  return setting(
      f, "a smaller --context, --kv-type q8_0, or a smaller quantisation",
      "a smaller num_ctx (OLLAMA_CONTEXT_LENGTH), OLLAMA_KV_CACHE_TYPE=q8_0 with OLLAMA_FLASH_ATTENTION=1, "
      "or a "
      "smaller quantisation",
      "a smaller --ctx-size, --cache-type-k q8_0 --cache-type-v q8_0 with --flash-attn on, or a smaller "
      "quantisation");
}

// What the GPUs lack can come from a shorter context and smaller keys and values, or only from smaller
// weights.
constexpr double kMuch = 0.2;

Found layers_on_cpu(const Facts& f) {
  if (!layers_missing(f) || on_host(f) <= 0) return {};
  const auto missing = static_cast<std::uint64_t>(on_host(f));
  const std::uint64_t there = free_on_gpus(f), lacking = missing > there ? missing - there : 0;
  double all = 0;
  for (const DeviceFacts& d : f.devices) all += static_cast<double>(d.read_weights);
  const bool much = static_cast<double>(lacking) > kMuch * all + static_cast<double>(kv_on_gpus(f));
  const std::string room =
      lacking ? fmt::format("it takes {} more of the GPUs' memory", size_text(lacking, Rounding::up))
              : fmt::format("the GPUs have {} free, enough for them", size_text(there, Rounding::down));
  Finding found{Cause::layers_on_cpu,
                fmt::format("{} of {} layers ({}) lie on the CPU{}; {}", f.layers - f.layers_on_gpu, f.layers,
                            size_text(missing), time_text(f), room),
                much ? "a smaller model or quantisation, or one more card: a shorter context alone can't "
                       "make so much room"
                     : layers_setting(f, lacking == 0)};
  if (!lacking) found.flags = {{"--device", "auto"}, {"--placement", "auto"}};
  if (!much) found.predicted = per_second(without_host(f));
  if (token_seconds(f) > 0) found.share = std::min(1.0, host_seconds(f) / token_seconds(f));
  return found;
}

Found head_on_cpu(const Facts& f) {
  if (!some_on_gpu(f) || f.layers_on_gpu + 1 != f.layers || on_host(f) <= 0) return {};
  Finding found{
      Cause::head_on_cpu,
      fmt::format("all repeating layers are on the GPU, but the output layer ({}) isn't: it is read whole "
                  "for every token{}",
                  size_text(static_cast<std::uint64_t>(on_host(f))), time_text(f)),
      setting(f, "leave --device, --placement and --memory out, or a smaller --context so that it fits",
              fmt::format("PARAMETER num_gpu {} in the Modelfile, one more than its layers", f.layers),
              fmt::format("--gpu-layers {}, one more than its layers", f.layers))};
  found.flags = {{"--device", "auto"}, {"--placement", "auto"}};
  found.predicted = per_second(without_host(f));
  return found;
}

// GPUs can be used, and have nothing of the model.
Found gpu_unused(const Facts& f) {
  if (f.gpus().empty() || f.layers == 0 || f.layers_on_gpu > 0 || !f.no_gpu.empty()) return {};
  const std::string why = f.passed_over.empty() ? "" : ": " + f.passed_over;
  Finding found{
      Cause::gpu_unused,
      fmt::format("all {} layers lie on the CPU, and {} is idle{}", f.layers, fastest_gpu(f)->id, why),
      setting(f,
              "leave --device, --placement and --memory out, or make it fit: a smaller --context, --kv-type "
              "q8_0, a "
              "smaller quantisation",
              fmt::format("PARAMETER num_gpu {} in the Modelfile, or leave num_gpu out", f.layers),
              fmt::format("--gpu-layers {}", f.layers)),
      {{"--device", "auto"}, {"--placement", "auto"}}};
  const double bytes = on_host(f), rate = fastest_gpu(f)->read_rate;
  if (bytes > 0 && rate > 0) found.predicted = rate * kUsualShare / bytes;
  return found;
}

bool old_driver(const Facts& f) {
  return std::atoi(f.driver.c_str()) > 0 && std::atoi(f.driver.c_str()) < kLeastDriver &&
         f.engine == Engine::steelyard;
}

Found driver_too_old(const Facts& f) {
  if (!f.gpu_present || f.no_gpu.empty()) return {};
  if (!old_driver(f) && f.no_gpu.find("insufficient") == f.no_gpu.npos) return {};
  return Finding{Cause::driver_too_old,
                 fmt::format("a GPU is there, but its driver{} can't run these kernels ({})",
                             f.driver.empty() ? "" : " " + f.driver, f.no_gpu),
                 setting(f, "install NVIDIA's driver 580 or newer", "install a newer NVIDIA driver",
                         "install a newer NVIDIA driver")};
}

Found build_without_gpu(const Facts& f) {
  if (!f.gpu_present || f.no_gpu.empty() || driver_too_old(f)) return {};
  return Finding{
      Cause::build_without_gpu,
      fmt::format("{} can't be used: {}",
                  f.engine == Engine::steelyard ? "a GPU is there and" : "a GPU was asked for, and",
                  f.no_gpu),
      setting(f,
              "build with a CUDA 13 compiler (./demo.sh fetches one), so that "
              "steelyard_kernels.bin lies beside the program",
              "install Ollama with its CUDA libraries, and give a container the GPU (--gpus all)",
              "build with -DGGML_CUDA=ON, and give a container the GPU (--gpus all)")};
}

// GPUs that hold some of it.
std::vector<const DeviceFacts*> working(const Facts& f) {
  auto list = f.gpus();
  std::erase_if(list, [](const DeviceFacts* g) { return g->reads() <= 0; });
  return list;
}

bool alike(const std::vector<const DeviceFacts*>& gpus) {
  const auto [low, high] = std::ranges::minmax(gpus, {}, &DeviceFacts::read_rate);
  return high->read_rate < kUneven * low->read_rate || low->read_rate <= 0;
}

// The same bytes read by all of them at once, and the sums that this takes.
double as_ranks(const Facts& f, const std::vector<const DeviceFacts*>& gpus) {
  double bytes = 0, slowest = gpus.front()->read_rate;
  for (const DeviceFacts* g : gpus) {
    bytes += g->reads();
    slowest = std::min(slowest, g->read_rate);
  }
  if (slowest <= 0) return 0;
  const auto n = static_cast<std::uint32_t>(gpus.size());
  const DeviceLink link{.name = "PCIe 4 x16", .bytes_per_second = 27.5e9, .peer = false};
  const double sums = 2.0 * f.layers * sum_seconds(link, 1, f.width ? f.width : 5120, n);
  double seconds = bytes / n / (slowest * efficiency(f)) + sums;
  if (on_host(f) > 0) seconds += host_seconds(f);
  return seconds;
}

Found stages_one_stream(const Facts& f) {
  const auto gpus = working(f);
  if (f.split != Split::stages || gpus.size() < 2 || !alike(gpus)) return {};
  std::string shares;
  std::uint64_t bytes = 0;
  for (const DeviceFacts* g : gpus) {
    const auto here = static_cast<std::uint64_t>(g->reads());
    shares += fmt::format("{}{} {}", shares.empty() ? "" : ", then ", g->id, size_text(here));
    bytes += here;
  }
  const std::uint64_t room = gpus.front()->memory;
  const bool one_would_do = room > 0 && static_cast<double>(bytes) < 0.9 * static_cast<double>(room);
  const std::string one = one_would_do ? "; one of them alone could hold it, at the same speed" : "";
  Finding found{
      Cause::stages_one_stream,
      fmt::format("each token is read by {}: while one GPU works the others wait, so {} GPUs are no faster "
                  "than one{}",
                  shares, gpus.size(), one),
      setting(
          f, "--placement ranks divides every layer over the GPUs",
          "nothing of Ollama's, which splits by layers only; llama-server has --split-mode tensor (with "
          "--flash-attn on) "
          "for the same file, "
          "Steelyard --placement ranks; several conversations at once (OLLAMA_NUM_PARALLEL) keep both busy",
          "--split-mode tensor --flash-attn on (builds of April 2026 and newer; keys and values in f16)"),
      {{"--placement", "ranks"}}};
  const double seconds = as_ranks(f, gpus);
  if (seconds > 0 && (token_seconds(f) <= 0 || seconds < token_seconds(f)))
    found.predicted = per_second(seconds);
  return found;
}

// The slower card has more than it should: the faster one has room.
Found uneven_cards(const Facts& f) {
  const auto gpus = working(f);
  if (f.split != Split::stages || gpus.size() < 2 || alike(gpus)) return {};
  const auto [slow, fast] = std::ranges::minmax(gpus, {}, &DeviceFacts::read_rate);
  const double moved = std::min(slow->reads(), 0.9 * static_cast<double>(fast->free));
  const double saved = moved / slow->read_rate - moved / fast->read_rate;
  if (saved < 0.05 * limit_in_turn(f)) return {};
  Finding found{
      Cause::uneven_cards,
      fmt::format("{} reads {:.0f} GB/s and {} {:.0f} GB/s, and {} more would fit on the faster one",
                  slow->id, slow->read_rate / 1e9, fast->id, fast->read_rate / 1e9,
                  size_text(static_cast<std::uint64_t>(moved), Rounding::down)),
      setting(f, "--placement with more layers for the faster card, such as cuda0:0-47,cuda1:48-",
              "none: Ollama divides by memory; CUDA_VISIBLE_DEVICES with the fast card alone if it holds the "
              "model",
              "--tensor-split with a larger share for the faster card")};
  if (token_seconds(f) > 0) found.predicted = per_second(token_seconds(f) - saved / efficiency(f));
  return found;
}

Found sums_through_host(const Facts& f) {
  const double part = f.share(Part::links);
  if (f.split != Split::ranks || part < 0.2) return {};
  for (const LinkFacts& link : f.links)
    if (link.peer && link.from != "CPU" && link.to != "CPU" && f.engine != Engine::steelyard) return {};
  Finding found{
      Cause::sums_through_host,
      fmt::format("{:.0f} % of a token's time goes to sums that ranks hand each other through host memory",
                  100 * part),
      setting(f, "--placement stages, or single where one GPU holds it; fewer ranks", "",
              "--split-mode layer"),
      {{"--placement", "stages"}}};
  const double seconds = limit_in_turn(f) / efficiency(f);
  if (seconds > 0 && seconds < token_seconds(f)) found.predicted = per_second(seconds);
  return found;
}

double lane_rate(std::uint32_t generation) {
  constexpr double kLane[] = {0, 0.25e9, 0.5e9, 0.985e9, 1.97e9, 3.94e9, 7.56e9};
  return generation < std::size(kLane) ? kLane[generation] : kLane[std::size(kLane) - 1];
}

// Fewer lanes than the card has, or a measured rate far below what its lanes should give.
Found slow_link(const Facts& f) {
  for (const DeviceFacts* g : f.gpus()) {
    if (!g->health || g->health->link_width_most == 0) continue;
    const GpuHealth& h = *g->health;
    const double nominal = h.link_width * lane_rate(h.link_generation_most);
    double measured = 0;
    for (const LinkFacts& link : f.links)
      if (link.to == g->id || link.from == g->id) measured = std::max(measured, link.measured);
    const bool narrow = h.link_width * 2 <= h.link_width_most;
    const bool slow = measured > 0 && measured < 0.4 * nominal;
    if (!narrow && !slow) continue;
    return Finding{
        Cause::slow_link,
        fmt::format("{} has {} of {} lanes of PCI Express{}", g->id, h.link_width, h.link_width_most,
                    measured > 0 ? fmt::format(" and moves {:.1f} GB/s", measured / 1e9) : ""),
        "the mainboard's widest slot, without a riser; in its firmware the slot's lanes and generation: "
        "loading, and what devices hand each other, wait for this"};
  }
  return {};
}

// Room that a context keeps and layers would need.
Found context_reserved(const Facts& f) {
  if (!layers_missing(f) || on_host(f) <= 0 || f.context < 8192) return {};
  const double kv = static_cast<double>(kv_on_gpus(f));
  const double lacking = on_host(f) - static_cast<double>(free_on_gpus(f));
  const double kept = 4096.0 / f.context * kv;  // of 4096 tokens
  if (lacking <= 0 || kv - kept < 0.5 * lacking) return {};
  Finding found{
      Cause::context_reserved,
      fmt::format(
          "{} of the GPUs' memory are kept for {} tokens of context, while {} of layers lie on the CPU",
          size_text(static_cast<std::uint64_t>(kv)), f.context,
          size_text(static_cast<std::uint64_t>(on_host(f)))),
      setting(f, "--context with what conversations need, such as 4096",
              "OLLAMA_CONTEXT_LENGTH or num_ctx with what conversations need, such as 4096; "
              "OLLAMA_NUM_PARALLEL=1 "
              "where it multiplies the context",
              "--ctx-size with what conversations need, such as 4096"),
      {{"--context", "4096"}}};
  if (kv - kept >= lacking) found.predicted = per_second(without_host(f));
  return found;
}

// The same room, by the type of keys and values.
Found kv_type(const Facts& f) {
  if (!layers_missing(f) || (f.kv_type != "f16" && f.kv_type != "f32")) return {};
  const double share = f.kv_type == "f16" ? kQ8OfF16 : kQ8OfF16 / 2;
  const double saved = static_cast<double>(kv_on_gpus(f)) * (1 - share);
  const double lacking = on_host(f) - static_cast<double>(free_on_gpus(f));
  if (lacking <= 0 || saved < 0.5 * lacking) return {};
  Finding found{
      Cause::kv_type,
      fmt::format("keys and values in {} take {} of the GPUs; in q8_0 they would leave {} more for layers",
                  f.kv_type, size_text(kv_on_gpus(f)),
                  size_text(static_cast<std::uint64_t>(saved), Rounding::down)),
      setting(f, "--kv-type q8_0", "OLLAMA_KV_CACHE_TYPE=q8_0 with OLLAMA_FLASH_ATTENTION=1",
              "--cache-type-k q8_0 --cache-type-v q8_0 with --flash-attn on"),
      {{"--kv-type", "q8_0"}}};
  if (saved >= lacking) found.predicted = per_second(without_host(f));
  return found;
}

Found kv_on_cpu(const Facts& f) {
  const DeviceFacts* host = f.host_device();
  if (!host || f.layers == 0 || f.layers_on_gpu < f.layers) return {};
  const auto kv = host->holds.find("KV state");
  if (kv == host->holds.end() || kv->second == 0) return {};
  return Finding{
      Cause::kv_on_cpu,
      fmt::format("{} of keys and values lie in host memory, though all layers are on the GPU",
                  size_text(kv->second)),
      setting(f, "a smaller --context, or --kv-type q8_0", "a smaller num_ctx, or OLLAMA_KV_CACHE_TYPE=q8_0",
              "leave --no-kv-offload out; a smaller --ctx-size if it doesn't fit then")};
}

}  // namespace

std::string setting(const Facts& f, std::string steelyard, std::string ollama, std::string llama_cpp) {
  switch (f.engine) {
    case Engine::steelyard:
      return steelyard;
    case Engine::ollama:
      return ollama;
    case Engine::llama_cpp:
      return llama_cpp;
  }
  return {};
}

double per_second(double seconds) { return seconds > 0 ? 1 / seconds : 0; }
double token_seconds(const Facts& f) { return per_second(f.tokens_per_second); }

double efficiency(const Facts& f) {
  const double limit = limit_in_turn(f), now = token_seconds(f);
  if (limit <= 0 || now <= 0 || on_host(f) > 0) return kUsualShare;
  return std::clamp(limit / now, 0.2, 1.0);
}

std::vector<Rule> placement_rules() {
  return {gpu_unused, layers_on_cpu,     head_on_cpu,  build_without_gpu, driver_too_old, context_reserved,
          kv_type,    stages_one_stream, uneven_cards, sums_through_host, kv_on_cpu,      slow_link};
}

}  // namespace steelyard::doctor
