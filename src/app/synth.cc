// steelyard synth
#include "store/synth.h"

#include "app/command_line.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/interrupt.h"
#include "app/output.h"
#include "app/progress.h"
#include "base/error.h"
#include "store/mixture.h"
#include "store/synth_model.h"

namespace steelyard {
namespace {

struct Flags {
  SynthOptions options;
  std::string out;
  bool no_template = false, list = false;
};

int list_shapes() {
  print("{:<18}  {:<8}  {:>6}  {:>6}  {:>7}  {:>5}  {:>3}  {:>10}\n", "SHAPE", "ARCH", "LAYERS", "WIDTH",
        "FF", "HEADS", "KV", "VOCABULARY");
  for (const SynthShape& s : synth_shapes())
    print("{:<18}  {:<8}  {:>6}  {:>6}  {:>7}  {:>5}  {:>3}  {:>10}\n", s.name, s.architecture, s.layers,
          s.embedding, s.feed_forward, s.heads, s.kv_heads, s.vocabulary);
  return 0;
}

int synth(Flags& flags) {
  if (flags.list) return list_shapes();
  if (flags.options.shape.empty() || flags.out.empty())
    throw_usage("synth wants SHAPE and OUT; `steelyard synth --list` shows the shapes");
  if (flags.out == "-")
    throw_usage("synth writes a file, not standard output: name one, or /dev/stdout for a pipe");
  flags.options.chat_template = !flags.no_template;
  Progress progress("writing " + flags.out);
  const InterruptScope scope(false);
  flags.options.progress = [&](std::uint64_t done, std::uint64_t total) {
    InterruptScope::check();
    progress.update(done, total);
  };
  write_synthetic_model(flags.options, flags.out);
  return 0;
}

}  // namespace

void add_synth(CLI::App& app, Action& action) {
  auto* command = add_command(app, "synth", "write a random-weight GGUF file of a real model's shape",
                              "  steelyard synth --list\n"
                              "  steelyard synth llama3.2-1b /tmp/llama-1b.gguf\n"
                              "  steelyard synth tiny-gemma3 /tmp/tiny.gguf --type q8_0 --vocabulary");
  auto flags = std::make_shared<Flags>();
  takes(command->add_option("SHAPE", flags->options.shape, "a shape of --list"), "NAME",
        [](const std::string& text) { find_synth_shape(text); });
  command->add_option("OUT", flags->out, "the file to write");
  takes(command->add_option("--type", flags->options.type, "q4_k_m or a type such as q8_0 or f16"), "TYPE",
        [](const std::string& text) { parse_mixture(text); })
      ->capture_default_str();
  takes_number(command->add_option("-s,--seed", flags->options.seed, "the same seed writes the same bytes"),
               0, 9e15)
      ->capture_default_str();
  takes_number(command->add_option("-t,--threads", flags->options.threads, "threads to write with"), 1, 1024)
      ->capture_default_str();
  command->add_flag("--vocabulary", flags->options.vocabulary,
                    "add a byte-level vocabulary, so that commands on text work");
  command->add_flag("--no-template", flags->no_template,
                    "with --vocabulary: leave the chat template out, as base models do");
  command->add_flag("--list", flags->list, "list the shapes");
  command->callback([&action, flags] { action = [flags] { return synth(*flags); }; });
}

}  // namespace steelyard
