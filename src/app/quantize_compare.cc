#include "app/quantize_compare.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

#include "app/direct.h"
#include "app/interrupt.h"
#include "app/npy.h"
#include "app/output.h"
#include "app/progress.h"
#include "app/type_cost.h"
#include "base/error.h"
#include "base/output_file.h"
#include "base/units.h"
#include "decoder/batch.h"
#include "device/step.h"
#include "engine/loaded_model.h"
#include "gguf/gguf.h"
#include "plan/plan.h"
#include "store/mixture.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr std::uint32_t kBatch = 64;      // tokens a step while the text is judged
constexpr std::uint32_t kGenerated = 32;  // tokens of a run whose speed is measured
constexpr int kRuns = 3;                  // the fastest counts
constexpr double kSameTop = 0.95;         // of places with the same likeliest word: hardly noticed

// A folder that ends with its owner.
class Scratch {
 public:
  Scratch() {
    std::error_code error;
    const std::filesystem::path parent = std::filesystem::temp_directory_path(error);
    std::string name = (parent / "steelyard-compare-XXXXXX").string();
    if (error || !mkdtemp(name.data()))
      throw_error(ErrorKind::io, "no folder for the files can be made; name another in $TMPDIR");
    path_ = name;
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  std::filesystem::path operator/(const char* name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

// Tokens a second of kGenerated tokens after each other, one stream.
double generation_speed(DirectModel& model, std::span<const std::int32_t> ids) {
  static constexpr std::int32_t kLast[] = {kLastSample};
  double best = 0;
  for (int run = 0; run <= kRuns; ++run) {  // the first warms up
    Chunk chunk = model.chunk(0, 0, ids.first(1));
    chunk.n_outputs = 1;
    chunk.want = Want::sample;
    const auto start = Clock::now();
    for (std::uint32_t i = 0; i < kGenerated; ++i) {
      model.push({&chunk, 1});
      ++chunk.first_position;
      chunk.tokens = kLast;
    }
    model.finish();
    if (run > 0)
      best = std::max(best, kGenerated / std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

// Tokens a second of the text's first window as a prompt.
double prompt_speed(DirectModel& model, std::span<const std::int32_t> ids) {
  double best = 0;
  for (int run = 0; run <= kRuns; ++run) {
    const auto start = Clock::now();
    for (std::size_t at = 0; at < ids.size(); at += model.limits().rows) {
      const std::size_t n = std::min<std::size_t>(model.limits().rows, ids.size() - at);
      Chunk chunk = model.chunk(0, static_cast<std::uint32_t>(at), ids.subspan(at, n));
      if (at + n == ids.size()) {
        chunk.n_outputs = 1;
        chunk.want = Want::sample;
      }
      model.push({&chunk, 1});
    }
    model.finish();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (run > 0) best = std::max(best, static_cast<double>(ids.size()) / seconds);
  }
  return best;
}

// Fills in what a run of the file tells. The first model's logits are what the others are held against.
void measure(TypeCost& row, const std::filesystem::path& file, const Text& text, ModelOptions options,
             const std::filesystem::path& logits, bool first) {
  PreparedModel prepared = prepare_model(file, options);
  for (const DevicePlan& device : prepared.plan.devices) row.memory += device.total();
  row.slow = prepared.plan.slow_types;
  DirectModel model(std::move(prepared), true);
  const std::uint32_t vocabulary = model.program().vocab_size;
  std::optional<NpyWriter> save;
  std::optional<NpyFile> reference;
  if (first)
    save.emplace(logits.string(), text.ids.size(), vocabulary);
  else
    reference = NpyFile::open(logits.string());
  row.score = run_text(model, text, save ? &*save : nullptr, reference ? &*reference : nullptr);
  if (save) save->finish();
  const auto window = std::span(text.ids).first(text.window);
  row.prompt = prompt_speed(model, window);
  row.generated = generation_speed(model, window);
}

void take_sizes(TypeCost& row, std::span<const TensorChange> changes) {
  std::uint64_t weights = 0;
  for (const TensorChange& c : changes) {
    row.bytes += c.bytes;
    weights += c.tensor->shape.elements();
  }
  row.bits = 8.0 * static_cast<double>(row.bytes) / static_cast<double>(std::max<std::uint64_t>(1, weights));
}

std::vector<TensorChange> unchanged(const GgufFile& file) {
  std::vector<TensorChange> changes;
  for (const GgufTensor& t : file.tensors()) changes.push_back({&t, t.type, t.bytes});
  return changes;
}

void write(const GgufFile& file, std::span<const TensorChange> changes, QuantizeOptions options,
           const std::filesystem::path& out, const std::string& type) {
  Progress progress("making " + type, false, Progress::Unit::bytes, Progress::Kind::passing);
  const InterruptScope scope(false);
  options.progress = [&](std::uint64_t done, std::uint64_t total) {
    if (InterruptScope::interrupted()) throw_error(ErrorKind::cancelled, "interrupted: nothing is left");
    progress.update(done, total);
  };
  write_quantized(file, changes, options, out);
}

void print_head() {
  print("{:<8} {:>10} {:>6} {:>10} {:>9} {:>9} {:>8} {:>10} {:>9} {:>9}\n", "TYPE", "SIZE", "BITS", "MEMORY",
        "MEAN KL", "P99 KL", "SAME TOP", "PERPLEXITY", "PROMPT/S", "TOKENS/S");
}

void print_row(const TypeCost& r, bool first) {
  const auto against = [&](std::string text) { return first ? std::string("–") : std::move(text); };
  print("{:<8} {:>10} {:>6.2f} {:>10} {:>9} {:>9} {:>8} {:>10.3f} {:>9.1f} {:>9.1f}{}\n", r.type,
        size_text(r.bytes), r.bits, size_text(r.memory, Rounding::up),
        against(fmt::format("{:.2g}", r.score.mean_divergence())),
        against(fmt::format("{:.2g}", r.score.divergence_quantile(0.99))),
        against(fmt::format("{:.1f} %", 100 * r.same_top())), r.score.perplexity(), r.prompt, r.generated,
        r.slow.empty() ? "" : fmt::format("  no fast kernel here for {}", fmt::join(r.slow, ", ")));
}

Json to_json(const TypeCost& r, const TypeCost& original) {
  Json value = {{"type", r.type},
                {"bytes", r.bytes},
                {"bits_per_weight", r.bits},
                {"memory_bytes", r.memory},
                {"perplexity", r.score.perplexity()},
                {"prompt_tokens_per_second", r.prompt},
                {"generated_tokens_per_second", r.generated},
                {"without_fast_kernel", r.slow}};
  if (&r == &original) return value;
  value.update({{"mean_kl", r.score.mean_divergence()},
                {"median_kl", r.score.divergence_quantile(0.5)},
                {"p99_kl", r.score.divergence_quantile(0.99)},
                {"p999_kl", r.score.divergence_quantile(0.999)},
                {"same_top", r.same_top()},
                {"perplexity_ratio", r.score.perplexity() / original.score.perplexity()}});
  return value;
}

// The smallest that changes the likeliest word at hardly any place.
std::string advice(std::span<const TypeCost> made) {
  const TypeCost* best = nullptr;
  for (const TypeCost& r : made)
    if (r.same_top() >= kSameTop && (!best || r.bytes < best->bytes)) best = &r;
  if (best)
    return fmt::format(
        "{} is the smallest of them that keeps the likeliest word at {:.0f} % of the places or more",
        best->type, 100 * kSameTop);
  return fmt::format(
      "none of them keeps the likeliest word at {:.0f} % of the places; take more bits where they fit",
      100 * kSameTop);
}

void save_picture(std::span<const TypeCost> rows, std::size_t tokens, const std::string& model,
                  const std::string& path) {
  const std::string svg = to_svg(rows, fmt::format("{}, {} tokens of text", model, tokens));
  OutputFile file(path);
  file.write(svg.data(), svg.size());
  file.finish();
}

}  // namespace

void compare_types(const std::filesystem::path& model, const QuantizeOptions& base, bool pure,
                   const CompareOptions& options) {
  ModelOptions load;
  load.batch = load.outputs = kBatch;
  load.reuse_prefixes = false;
  const Text text = read_text(options.text, model, load);
  const GgufFile file = GgufFile::open(model);
  const Scratch scratch;
  std::vector<TypeCost> rows(options.types.size() + 1);
  const auto logits = scratch / "logits.npy", out = scratch / "model.gguf";
  if (!options.json) print_head();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const bool first = i == 0;
    TypeCost& row = rows[i];
    row.type = first ? "as it is" : options.types[i - 1];
    QuantizeOptions wanted = base;
    if (!first) wanted.mixture = pure ? parse_mixture(row.type) : usual_mixture(parse_mixture(row.type));
    const std::vector<TensorChange> changes = first ? unchanged(file) : choose_types(file, wanted);
    take_sizes(row, changes);
    if (!first) write(file, changes, wanted, out, row.type);
    measure(row, first ? model : out, text, load, logits, first);
    if (!options.json) print_row(row, first);
  }
  if (!options.svg.empty()) save_picture(rows, text.ids.size(), model.filename().string(), options.svg);
  const std::span<const TypeCost> made = std::span(rows).subspan(1);
  if (!options.json) return print("\n{} tokens of text; {}.\n", text.ids.size(), advice(made));
  Json values = Json::array();
  for (const TypeCost& r : rows) values.push_back(to_json(r, rows.front()));
  print_json({{"tokens", text.ids.size()}, {"types", std::move(values)}, {"advice", advice(made)}});
}

}  // namespace steelyard
