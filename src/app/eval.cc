// steelyard eval
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "app/command_line.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/direct.h"
#include "app/interrupt.h"
#include "app/npy.h"
#include "app/output.h"
#include "app/progress.h"
#include "base/error.h"
#include "decoder/batch.h"
#include "device/step.h"
#include "engine/loaded_model.h"
#include "gguf/gguf.h"
#include "model/config.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace steelyard {
namespace {

constexpr std::uint32_t kWindow = 512;  // llama.cpp's perplexity program takes this many, too

struct Flags {
  std::string model, text;
  std::uint32_t tokens = 0, batch = 64, window = 0;
  std::string save, against;
  bool json = false;
  LoadFlags load;
};

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

// What one pass over the text gives, row by row.
struct Score {
  double negative_log_likelihood = 0;  // of the tokens after the first, nat
  std::uint64_t predicted = 0;
  std::vector<double> divergences;
  std::uint64_t same_top = 0;

  double perplexity() const {
    return std::exp(negative_log_likelihood / static_cast<double>(std::max<std::uint64_t>(1, predicted)));
  }
  double mean_divergence() const {
    double sum = 0;
    for (const double d : divergences) sum += d;
    return sum / static_cast<double>(std::max<std::size_t>(1, divergences.size()));
  }
  // The smallest value that at least 99 % of the rows don't exceed.
  double p99_divergence() const {
    if (divergences.empty()) return 0;
    auto sorted = divergences;
    std::sort(sorted.begin(), sorted.end());
    const auto rank = static_cast<std::size_t>(std::ceil(0.99 * static_cast<double>(sorted.size())));
    return sorted[rank - 1];
  }

  void add(std::span<const float> ours, std::optional<std::span<const float>> reference,
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
    const auto top = [](std::span<const float> x) {
      return std::max_element(x.begin(), x.end()) - x.begin();
    };
    same_top += top(ours) == top(*reference);
  }
};

// A text and how it is evaluated: as a whole, or in windows of so many tokens that know nothing of each
// other.
struct Text {
  std::vector<TokenId> ids;    // whole windows; each begins with BOS where the model wants one
  std::uint32_t window = 0;    // tokens of each
  std::uint32_t unjudged = 0;  // at the start of each: too little before them to judge by

  std::size_t windows() const { return ids.size() / window; }
};

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

std::vector<TokenId> read_tokens(const Flags& flags, const std::filesystem::path& path,
                                 std::optional<TokenId>& bos) {
  const GgufFile file = GgufFile::open(path);
  const Vocabulary vocabulary = Vocabulary::from_metadata(file.metadata());
  if (vocabulary.kind() == VocabularyKind::none)
    throw_error(ErrorKind::unsupported, "{} has no vocabulary, so no text can be evaluated with it",
                flags.model);
  if (vocabulary.add_bos()) bos = vocabulary.bos();
  auto ids = Tokenizer(vocabulary).encode(read_input(flags.text), {.add_special = true});
  if (vocabulary.add_eos() && !ids.empty()) ids.pop_back();  // the text goes on
  if (flags.tokens && ids.size() > flags.tokens) ids.resize(flags.tokens);
  if (ids.size() < 2)
    throw_error(ErrorKind::bad_input, "the text has {} token(s); eval needs two", ids.size());
  if (ids.size() < flags.tokens)
    note("note: the text has only {} tokens of the {} asked for", ids.size(), flags.tokens);
  return ids;
}

// Reads the text and how many tokens the model must hold at once: the text as a whole where that fits, else
// windows.
Text read_text(const Flags& flags, const std::filesystem::path& path, ModelOptions& options) {
  Text text;
  std::optional<TokenId> bos;
  text.ids = read_tokens(flags, path, bos);
  text.window = static_cast<std::uint32_t>(text.ids.size());
  const std::uint32_t trained = read_config(GgufFile::open(path)).context_train;
  const std::uint32_t most = options.context ? options.context : trained ? trained : kWindow;
  if (flags.window || text.ids.size() > most) {
    const std::uint32_t window = flags.window      ? flags.window
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

// Steps through one window; `first`: where it begins in the text.
void run_window(DirectModel& model, const Text& text, std::size_t first, Score& score, NpyWriter* save,
                const NpyFile* reference, Progress& progress) {
  const auto ids = std::span(text.ids).subspan(first, text.window);
  const std::size_t vocabulary = model.program().vocab_size;
  for (std::size_t at = 0; at < ids.size();) {
    if (InterruptScope::interrupted()) throw_error(ErrorKind::cancelled, "interrupted: nothing was written");
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

Score run_text(DirectModel& model, const Text& text, NpyWriter* save, const NpyFile* reference) {
  Score score;
  Progress progress("evaluating", false, Progress::Unit::tokens, Progress::Kind::passing);
  const InterruptScope scope(false);
  for (std::size_t first = 0; first < text.ids.size(); first += text.window)
    run_window(model, text, first, score, save, reference, progress);
  return score;
}

void report(const Flags& flags, const Score& score, const Text& text) {
  const std::size_t tokens = text.ids.size();
  const bool cut = text.unjudged > 0;
  if (flags.json) {
    nlohmann::ordered_json value = {{"tokens", tokens}, {"perplexity", score.perplexity()}};
    if (cut)
      value.update({{"windows", text.windows()}, {"window", text.window}, {"judged", score.predicted}});
    if (!flags.against.empty()) {
      value["mean_kl"] = score.mean_divergence();
      value["p99_kl"] = score.p99_divergence();
      value["top1_agreement"] = static_cast<double>(score.same_top) / static_cast<double>(tokens);
    }
    return print_json(value);
  }
  print("tokens      {}\n", tokens);
  if (cut)
    print("windows     {} of {} tokens; {} tokens judged\n", text.windows(), text.window, score.predicted);
  print("perplexity  {:.4f}\n", score.perplexity());
  if (!flags.against.empty())
    print("mean KL     {:.3g} nat\np99 KL      {:.3g} nat\ntop-1       {:.2f} % the same\n",
          score.mean_divergence(), score.p99_divergence(),
          100.0 * static_cast<double>(score.same_top) / static_cast<double>(tokens));
}

int eval(const Flags& flags) {
  const auto path = resolve_model(flags.model);
  ModelOptions options = flags.load.options();
  options.batch = options.outputs = flags.batch;
  options.reuse_prefixes = false;
  const Text text = read_text(flags, path, options);
  const auto& ids = text.ids;
  std::optional<NpyFile> reference;
  if (!flags.against.empty()) reference = NpyFile::open(flags.against);
  PreparedModel prepared = prepare_model(path, options);
  for (const std::string& sentence : prepared.notes) note("note: {}", sentence);
  DirectModel model(std::move(prepared), false);
  const std::uint32_t vocabulary = model.program().vocab_size;
  if (reference && (reference->rows() < ids.size() || reference->columns() != vocabulary))
    throw_error(ErrorKind::bad_input, "{} has {} x {} logits; this text and model need {} x {}",
                flags.against, reference->rows(), reference->columns(), ids.size(), vocabulary);
  std::optional<NpyWriter> save;
  if (!flags.save.empty()) save.emplace(flags.save, ids.size(), vocabulary);
  const Score score = run_text(model, text, save ? &*save : nullptr, reference ? &*reference : nullptr);
  if (save) save->finish();
  report(flags, score, text);
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  auto* command = add_command(
      app, "eval",
      "perplexity on a text, and how far the logits are from a reference\n"
      "A text that is longer than the context is cut into windows, as llama.cpp's perplexity program does:\n"
      "side by side, each beginning with BOS where the model wants one, and only the tokens of its second "
      "half are\njudged; KL and top token are of all. What fills no window at the end is left out.",
      "  steelyard eval smollm2 text.txt --tokens 1000\n"
      "  steelyard eval smollm2 text.txt --tokens 1000 --mode exact --save-logits exact.npy\n"
      "  steelyard eval smollm2 text.txt --tokens 1000 --against exact.npy");
  auto flags = std::make_shared<Flags>();
  add_model_argument(*command, flags->model);
  command->add_option("TEXT", flags->text, "a text file; - for standard input")->required();
  takes_number(
      command->add_option("-n,--tokens", flags->tokens, "evaluate the first so many tokens (default: all)"),
      2, 1 << 24);
  takes_number(command->add_option(
                   "--window", flags->window,
                   "cut the text into windows of so many tokens, judged by their second halves (default: "
                   "not cut where it fits into the context, else --context or 512)"),
               4, 1 << 24);
  takes_number(command->add_option("-b,--batch,--batch-size", flags->batch,
                                   "tokens a step; 1 uses the kernels of generation"),
               1, 4096)
      ->capture_default_str();
  command
      ->add_option("--save-logits", flags->save, "write float32 [tokens, vocabulary]; row i follows token i")
      ->type_name("FILE");
  command
      ->add_option("--against", flags->against,
                   "compare with logits saved before: KL(saved || these), top token")
      ->type_name("FILE");
  command->add_flag("--json", flags->json, "print JSON");
  flags->load.add(*command);
  command->callback([&action, flags] { action = [flags] { return eval(*flags); }; });
}

}  // namespace steelyard
