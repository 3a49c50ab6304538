#include "app/quantize_compare.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "app/bench_case.h"
#include "app/bench_runs.h"
#include "app/direct.h"
#include "app/interrupt.h"
#include "app/npy.h"
#include "app/output.h"
#include "app/progress.h"
#include "app/type_cost.h"
#include "base/error.h"
#include "base/output_file.h"
#include "base/temporary_folder.h"
#include "base/units.h"
#include "engine/loaded_model.h"
#include "gguf/gguf.h"
#include "plan/plan.h"
#include "store/mixture.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint32_t kBatch = 64;      // tokens a step while the text is judged
constexpr std::uint32_t kGenerated = 32;  // tokens of a run whose speed is measured
constexpr int kRuns = 3;                  // the fastest counts
constexpr double kSameTop = 0.95;         // of places with the same likeliest word: hardly noticed

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
  BenchRuns runs(model);
  row.prompt = runs.rates({.kind = BenchCase::Kind::prompt, .tokens = text.window}, kRuns).back();
  row.generated = runs.rates({.kind = BenchCase::Kind::generate, .tokens = kGenerated}, kRuns).back();
}

std::vector<TensorChange> unchanged(const GgufFile& file) {
  std::vector<TensorChange> changes;
  for (const GgufTensor& t : file.tensors()) changes.push_back({&t, t.type, t.bytes});
  return changes;
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

}  // namespace

void write_shown(const GgufFile& file, std::span<const TensorChange> changes, QuantizeOptions options,
                 const std::filesystem::path& out, Progress& progress) {
  const InterruptScope scope(false);
  options.progress = [&](std::uint64_t done, std::uint64_t total) {
    InterruptScope::check();
    progress.update(done, total);
  };
  write_quantized(file, changes, options, out);
}

void compare_types(const std::filesystem::path& model, const QuantizeOptions& base, bool pure,
                   const CompareOptions& options) {
  ModelOptions load;
  load.batch = load.outputs = kBatch;
  load.reuse_prefixes = false;
  const Text text = read_text(options.text, model, load);
  const GgufFile file = GgufFile::open(model);
  const TemporaryFolder scratch("compare");
  std::vector<TypeCost> rows(options.types.size() + 1);
  const auto logits = scratch.path() / "logits.npy", out = scratch.path() / "model.gguf";
  if (!options.json) print_head();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const bool first = i == 0;
    TypeCost& row = rows[i];
    row.type = first ? "as it is" : options.types[i - 1];
    QuantizeOptions wanted = base;
    if (!first) wanted.mixture = asked_mixture(row.type, pure);
    const std::vector<TensorChange> changes = first ? unchanged(file) : choose_types(file, wanted);
    const SizeTotals totals = totals_of(changes);
    row.bytes = totals.after;
    row.bits = totals.bits();
    if (!first) {
      Progress progress("making " + row.type, false, Progress::Unit::bytes, Progress::Kind::passing);
      write_shown(file, changes, wanted, out, progress);
    }
    measure(row, first ? model : out, text, load, logits, first);
    if (!options.json) print_row(row, first);
  }
  if (!options.svg.empty())
    write_file(options.svg, to_svg(rows, fmt::format("{}, {} tokens of text", model.filename().string(),
                                                     text.ids.size())));
  const std::span<const TypeCost> made = std::span(rows).subspan(1);
  if (!options.json) return print("\n{} tokens of text; {}.\n", text.ids.size(), advice(made));
  Json values = Json::array();
  for (const TypeCost& r : rows) values.push_back(to_json(r, rows.front()));
  print_json({{"tokens", text.ids.size()}, {"types", std::move(values)}, {"advice", advice(made)}});
}

}  // namespace steelyard
