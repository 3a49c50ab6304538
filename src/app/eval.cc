// steelyard eval
#include <memory>
#include <optional>

#include "app/command_line.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/direct.h"
#include "app/evaluation.h"
#include "app/npy.h"
#include "app/output.h"
#include "base/error.h"
#include "engine/loaded_model.h"

namespace steelyard {
namespace {

struct Flags {
  std::string model;
  std::uint32_t batch = 64;
  TextOptions text;
  std::string save, against;
  bool json = false;
  LoadFlags load;
};

void report(const Flags& flags, const Score& score, const Text& text) {
  const std::size_t tokens = text.ids.size();
  const bool cut = text.unjudged > 0;
  if (flags.json) {
    nlohmann::ordered_json value = {{"tokens", tokens}, {"perplexity", score.perplexity()}};
    if (cut)
      value.update({{"windows", text.windows()}, {"window", text.window}, {"judged", score.predicted}});
    if (!flags.against.empty()) {
      value["mean_kl"] = score.mean_divergence();
      value["p99_kl"] = score.divergence_quantile(0.99);
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
          score.mean_divergence(), score.divergence_quantile(0.99),
          100.0 * static_cast<double>(score.same_top) / static_cast<double>(tokens));
}

int eval(const Flags& flags) {
  const auto path = resolve_model(flags.model);
  ModelOptions options = flags.load.options();
  options.batch = options.outputs = flags.batch;
  options.reuse_prefixes = false;
  const Text text = read_text(flags.text, path, options);
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
  command->add_option("TEXT", flags->text.file, "a text file; - for standard input")->required();
  takes_number(command->add_option("-n,--tokens", flags->text.tokens,
                                   "evaluate the first so many tokens (default: all)"),
               2, 1 << 24);
  takes_number(command->add_option(
                   "--window", flags->text.window,
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
  flags->load.add_with_devices(*command);
  command->callback([&action, flags] { action = [flags] { return eval(*flags); }; });
}

}  // namespace steelyard
