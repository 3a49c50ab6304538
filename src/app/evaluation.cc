#include "app/evaluation.h"

#include <algorithm>
#include <cmath>

#include "app/command_line.h"
#include "app/common.h"
#include "app/interrupt.h"
#include "app/output.h"
#include "app/progress.h"
#include "base/error.h"
#include "decoder/batch.h"
#include "device/step.h"
#include "gguf/gguf.h"
#include "model/config.h"
#include "text/tokenizer.h"

namespace steelyard {
namespace {

constexpr std::uint32_t kWindow = 512;  // llama.cpp's perplexity program takes this many, too

double log_sum_exp(std::span<const float> logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - most);
  return most + std::log(sum);
}

// Kullback-Leibler divergence KL(reference ‖ ours) of the softmaxes, in nat.
double divergence(std::span<const float> reference, std::span<const float> ours, double log_sum_ours) {
  const double log_sum = log_sum_exp(reference);
  double sum = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    const double log_p = reference[i] - log_sum;
    sum += std::exp(log_p) * (log_p - (ours[i] - log_sum_ours));
  }
  return sum;
}

// Windows as llama.cpp's perplexity program has them, so that the figures compare: side by side, what is left
// at the end dropped, the first token of each replaced by BOS, and only those judged that have half a window
// before them.
void cut_into_windows(Text& text, std::uint32_t window, std::optional<TokenId> bos) {
  const std::size_t left = text.ids.size() % window;
  if (left > 0) note("note: {} tokens at the end fill no window and are left out", left);
  text.ids.resize(text.ids.size() - left);
  text.window = window;
  text.unjudged = window / 2;
  if (bos)
    for (std::size_t at = 0; at < text.ids.size(); at += window) text.ids[at] = *bos;
}

std::vector<TokenId> read_tokens(const TextOptions& wanted, const std::filesystem::path& path,
                                 std::optional<TokenId>& bos) {
  const GgufFile file = GgufFile::open(path);
  const Vocabulary vocabulary = Vocabulary::from_metadata(file.metadata());
  if (vocabulary.kind() == VocabularyKind::none)
    throw_error(ErrorKind::unsupported, "{} has no vocabulary, so no text can be evaluated with it",
                path.filename().string());
  if (vocabulary.add_bos()) bos = vocabulary.bos();
  auto ids = Tokenizer(vocabulary).encode(read_input(wanted.file), {.add_special = true});
  if (vocabulary.add_eos() && !ids.empty()) ids.pop_back();  // the text goes on
  if (wanted.tokens && ids.size() > wanted.tokens) ids.resize(wanted.tokens);
  if (ids.size() < 2)
    throw_error(ErrorKind::bad_input, "the text has {} token(s); eval needs two", ids.size());
  if (ids.size() < wanted.tokens)
    note("note: the text has only {} tokens of the {} asked for", ids.size(), wanted.tokens);
  return ids;
}

// Steps through one window; `first`: where it begins in the text.
void run_window(DirectModel& model, const Text& text, std::size_t first, Score& score, NpyWriter* save,
                const NpyFile* reference, Progress& progress) {
  const auto ids = std::span(text.ids).subspan(first, text.window);
  const std::size_t vocabulary = model.program().vocab_size;
  for (std::size_t at = 0; at < ids.size();) {
    InterruptScope::check();
    progress.update(first + at, text.ids.size());
    const std::size_t n = std::min<std::size_t>(model.limits().rows, ids.size() - at);
    Chunk chunk = model.chunk(0, static_cast<std::uint32_t>(at), ids.subspan(at, n));
    chunk.n_outputs = static_cast<std::uint32_t>(n);
    chunk.want = Want::logits;
    const StepResult& result = model.step({&chunk, 1});
    for (std::size_t i = 0; i < n; ++i) {
      const auto row = result.logits.subspan(i * vocabulary, vocabulary);
      std::optional<std::span<const float>> judge;
      if (reference) judge = reference->row(first + at + i);
      std::optional<TokenId> next;
      if (at + i + 1 < ids.size() && at + i >= text.unjudged) next = ids[at + i + 1];
      score.add(row, judge, next);
      if (save) save->append(row);
    }
    at += n;
  }
}

}  // namespace

double Score::perplexity() const {
  return std::exp(negative_log_likelihood / static_cast<double>(std::max<std::uint64_t>(1, predicted)));
}

double Score::mean_divergence() const {
  double sum = 0;
  for (const double d : divergences) sum += d;
  return sum / static_cast<double>(std::max<std::size_t>(1, divergences.size()));
}

double Score::divergence_quantile(double share) const {
  if (divergences.empty()) return 0;
  auto sorted = divergences;
  std::sort(sorted.begin(), sorted.end());
  const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(sorted.size())));
  return sorted[std::max<std::size_t>(rank, 1) - 1];
}

void Score::add(std::span<const float> ours, std::optional<std::span<const float>> reference,
                std::optional<std::int32_t> next) {
  const double log_sum = log_sum_exp(ours);
  if (!std::isfinite(log_sum))
    throw_error(ErrorKind::internal,
                "the model gave a logit that is no finite number; its weights may be damaged");
  if (next) {
    negative_log_likelihood += log_sum - ours[static_cast<std::size_t>(*next)];
    ++predicted;
  }
  if (!reference) return;
  divergences.push_back(divergence(*reference, ours, log_sum));
  const auto top = [](std::span<const float> x) { return std::max_element(x.begin(), x.end()) - x.begin(); };
  same_top += top(ours) == top(*reference);
}

Text read_text(const TextOptions& wanted, const std::filesystem::path& path, ModelOptions& options) {
  Text text;
  std::optional<TokenId> bos;
  text.ids = read_tokens(wanted, path, bos);
  text.window = static_cast<std::uint32_t>(text.ids.size());
  const std::uint32_t trained = read_config(GgufFile::open(path)).context_train;
  const std::uint32_t most = options.context ? options.context : trained ? trained : kWindow;
  if (wanted.window || text.ids.size() > most) {
    const std::uint32_t window = wanted.window     ? wanted.window
                                 : options.context ? most
                                                   : std::min(kWindow, most);
    if (options.context && window > options.context)
      throw_usage("--window {} is more than --context {}", window, options.context);
    if (text.ids.size() < window)
      throw_error(ErrorKind::bad_input, "the text has {} tokens, less than a window of {}", text.ids.size(),
                  window);
    cut_into_windows(text, window, bos);
  }
  if (!options.context) options.context = std::max(text.window, 256u);
  return text;
}

Score run_text(DirectModel& model, const Text& text, NpyWriter* save, const NpyFile* reference) {
  Score score;
  Progress progress("evaluating", false, Progress::Unit::tokens, Progress::Kind::passing);
  const InterruptScope scope(false);
  for (std::size_t first = 0; first < text.ids.size(); first += text.window)
    run_window(model, text, first, score, save, reference, progress);
  return score;
}

}  // namespace steelyard
