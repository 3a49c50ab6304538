// steelyard eval
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "app/commands.h"
#include "app/common.h"
#include "app/direct.h"
#include "app/npy.h"
#include "base/error.h"
#include "decoder/batch.h"
#include "device/step.h"
#include "engine/loaded_model.h"
#include "gguf/gguf.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace steelyard {
namespace {

struct Flags {
  std::string model, text;
  std::uint32_t tokens = 0, batch = 64;
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

std::vector<TokenId> read_tokens(const Flags& flags, const std::filesystem::path& path) {
  const GgufFile file = GgufFile::open(path);
  const Vocabulary vocabulary = Vocabulary::from_metadata(file.metadata());
  if (vocabulary.kind() == VocabularyKind::none)
    throw_error(ErrorKind::unsupported, "{} has no vocabulary, so no text can be evaluated with it",
                flags.model);
  auto ids = Tokenizer(vocabulary).encode(read_input(flags.text), {.add_special = true});
  if (vocabulary.add_eos() && !ids.empty()) ids.pop_back();  // the text goes on
  if (flags.tokens && ids.size() > flags.tokens) ids.resize(flags.tokens);
  if (ids.size() < 2)
    throw_error(ErrorKind::bad_input, "the text has {} token(s); eval needs two", ids.size());
  if (ids.size() < flags.tokens)
    note("note: the text has only {} tokens of the {} asked for", ids.size(), flags.tokens);
  return ids;
}

Score run_text(DirectModel& model, std::span<const TokenId> ids, NpyWriter* save, const NpyFile* reference) {
  Score score;
  Progress progress("evaluating", ids.size() < 256);
  const std::size_t vocabulary = model.program().vocab_size;
  for (std::size_t at = 0; at < ids.size();) {
    const std::size_t n = std::min<std::size_t>(model.limits().rows, ids.size() - at);
    Chunk chunk = model.chunk(0, static_cast<std::uint32_t>(at), ids.subspan(at, n));
    chunk.n_outputs = static_cast<std::uint32_t>(n);
    chunk.want = Want::logits;
    const StepResult& result = model.step({&chunk, 1});
    for (std::size_t i = 0; i < n; ++i) {
      const auto row = result.logits.subspan(i * vocabulary, vocabulary);
      std::optional<std::span<const float>> judge;
      if (reference) judge = reference->row(at + i);
      std::optional<TokenId> next;
      if (at + i + 1 < ids.size()) next = ids[at + i + 1];
      score.add(row, judge, next);
      if (save) save->append(row);
    }
    at += n;
  }
  return score;
}

void report(const Flags& flags, const Score& score, std::size_t tokens) {
  if (flags.json) {
    nlohmann::ordered_json value = {{"tokens", tokens}, {"perplexity", score.perplexity()}};
    if (!flags.against.empty()) {
      value["mean_kl"] = score.mean_divergence();
      value["p99_kl"] = score.p99_divergence();
      value["top1_agreement"] = static_cast<double>(score.same_top) / static_cast<double>(tokens);
    }
    return print_json(value);
  }
  print("tokens      {}\nperplexity  {:.4f}\n", tokens, score.perplexity());
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
  const auto ids = read_tokens(flags, path);
  if (!options.context) options.context = static_cast<std::uint32_t>(std::max<std::size_t>(ids.size(), 256));
  if (ids.size() > options.context)
    throw_error(ErrorKind::bad_input, "the text has {} tokens, more than --context {}: use --tokens",
                ids.size(), options.context);
  std::optional<NpyFile> reference;
  if (!flags.against.empty()) reference = NpyFile::open(flags.against);
  DirectModel model(prepare_model(path, options), false);
  const std::uint32_t vocabulary = model.program().vocab_size;
  if (reference && (reference->rows() < ids.size() || reference->columns() != vocabulary))
    throw_error(ErrorKind::bad_input, "{} has {} x {} logits; this text and model need {} x {}",
                flags.against, reference->rows(), reference->columns(), ids.size(), vocabulary);
  std::optional<NpyWriter> save;
  if (!flags.save.empty()) save.emplace(flags.save, ids.size(), vocabulary);
  const Score score = run_text(model, ids, save ? &*save : nullptr, reference ? &*reference : nullptr);
  if (save) save->finish();
  report(flags, score, ids.size());
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  auto* command =
      add_command(app, "eval", "perplexity on a text, and how far the logits are from a reference",
                  "  steelyard eval smollm2 text.txt --tokens 1000\n"
                  "  steelyard eval smollm2 text.txt --tokens 1000 --mode exact --save-logits exact.npy\n"
                  "  steelyard eval smollm2 text.txt --tokens 1000 --against exact.npy");
  auto flags = std::make_shared<Flags>();
  add_model_argument(*command, flags->model);
  command->add_option("TEXT", flags->text, "a text file; - for standard input")->required();
  command->add_option("--tokens", flags->tokens, "evaluate the first so many tokens (default: all)")
      ->check(CLI::Range(2, 1 << 24));
  command->add_option("--batch", flags->batch, "tokens a step; 1 uses the kernels of generation")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--save-logits", flags->save,
                      "write float32 [tokens, vocabulary]; row i follows token i");
  command->add_option("--against", flags->against,
                      "compare with logits saved before: KL(saved || these), top token");
  command->add_flag("--json", flags->json, "print JSON");
  flags->load.add(*command);
  command->callback([&action, flags] { action = [flags] { return eval(*flags); }; });
}

}  // namespace steelyard
