// steelyard quantize
#include <algorithm>
#include <sstream>

#include "app/command_line.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/output.h"
#include "app/progress.h"
#include "app/quantize_compare.h"
#include "base/dtype.h"
#include "base/error.h"
#include "base/process.h"
#include "base/units.h"
#include "gguf/gguf.h"
#include "store/mixture.h"
#include "store/quantize_model.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  std::string in, out, type = "q4_k_m", output, embedding, rule_file;
  std::vector<std::string> rules;
  std::string compare, svg;
  TextOptions text;
  bool pure = false, requantize = false, dry_run = false, json = false;
  unsigned threads = 0;
};

std::optional<DType> named_type(const std::string& name) {
  if (name.empty()) return std::nullopt;
  const auto info = find_dtype(name);
  if (!info) throw_error(ErrorKind::bad_input, "there is no weight type '{}'", name);
  return info->type;
}

QuantizeOptions options_of(const Flags& flags) {
  QuantizeOptions options;
  options.mixture = asked_mixture(flags.type, flags.pure);
  for (const std::string& rule : flags.rules) options.rules.push_back(parse_type_rule(rule));
  if (!flags.rule_file.empty()) {
    std::istringstream words(read_input(flags.rule_file));
    for (std::string rule; words >> rule;) options.rules.push_back(parse_type_rule(rule));
  }
  options.output = named_type(flags.output);
  options.embedding = named_type(flags.embedding);
  options.requantize = flags.requantize;
  options.threads = flags.threads ? flags.threads : cpu_share().threads;
  return options;
}

// "q8_0,q4_k_m": names of types, as they were written.
std::vector<std::string> type_names(const std::string& text) {
  std::vector<std::string> names;
  std::istringstream list(text);
  for (std::string name; std::getline(list, name, ',');) {
    parse_mixture(name);
    names.push_back(name);
  }
  return names;
}

void print_changes(std::span<const TensorChange> changes) {
  std::size_t name = 6, shape = 5;
  for (const TensorChange& c : changes) {
    name = std::max(name, c.tensor->name.size());
    shape = std::max(shape, to_string(c.tensor->shape).size());
  }
  print("{:<{}}  {:<{}}  {:<6}  {:<6}  {:>10}\n", "TENSOR", name, "SHAPE", shape, "FROM", "TO", "SIZE");
  for (const TensorChange& c : changes)
    print("{:<{}}  {:<{}}  {:<6}  {:<6}  {:>10}\n", c.tensor->name, name, to_string(c.tensor->shape), shape,
          dtype_info(c.tensor->type).name, dtype_info(c.to).name, size_text(c.bytes));
}

Json json_of(std::span<const TensorChange> changes, const SizeTotals& totals) {
  Json tensors = Json::array();
  for (const TensorChange& c : changes)
    tensors.push_back({{"name", c.tensor->name},
                       {"from", dtype_info(c.tensor->type).name},
                       {"to", dtype_info(c.to).name},
                       {"bytes", c.bytes}});
  return {{"tensors", tensors},
          {"weights", totals.weights},
          {"bytes_before", totals.before},
          {"bytes", totals.after},
          {"bits_per_weight", totals.bits()}};
}

void check_out(const std::filesystem::path& in, const std::string& out) {
  if (out == "-") throw_usage("quantize writes a file, not standard output: name one");
  std::error_code error;
  if (std::filesystem::equivalent(in, out, error))
    throw_error(ErrorKind::bad_input, "{} is the model that is read; name another file to write", out);
}

int compare(const Flags& flags) {
  if (!flags.out.empty() || flags.dry_run)
    throw_usage("--compare measures and keeps no file: leave OUT and --dry-run away");
  if (flags.text.file.empty())
    throw_usage("--compare wants --text FILE, a text that the models are judged by");
  compare_types(
      resolve_model(flags.in), options_of(flags), flags.pure,
      {.types = type_names(flags.compare), .text = flags.text, .svg = flags.svg, .json = flags.json});
  return 0;
}

int quantize(const Flags& flags) {
  if (!flags.compare.empty()) return compare(flags);
  if (flags.out.empty() && !flags.dry_run)
    throw_usage("quantize wants OUT, the file to write, or --dry-run, which shows what it would be");
  const QuantizeOptions options = options_of(flags);
  const auto path = resolve_model(flags.in);
  if (!flags.dry_run) check_out(path, flags.out);
  const GgufFile file = GgufFile::open(path);
  const std::vector<TensorChange> changes = choose_types(file, options);
  const SizeTotals totals = totals_of(changes);
  if (!flags.dry_run) {
    Progress progress("writing " + flags.out);
    write_shown(file, changes, options, flags.out, progress);
  }
  if (flags.json) {
    print_json(json_of(changes, totals));
    return 0;
  }
  if (flags.dry_run) print_changes(changes);
  print("{}{} -> {}, {:.2f} bits a weight\n", flags.dry_run ? "" : flags.out + ": ", size_text(totals.before),
        size_text(totals.after), totals.bits());
  return 0;
}

}  // namespace

void add_quantize(CLI::App& app, Action& action) {
  auto* command = add_command(
      app, "quantize", "write a model with smaller weights",
      "  steelyard quantize model-f16.gguf model-q4_k_m.gguf\n"
      "  steelyard quantize model-bf16.gguf model-q8_0.gguf --type q8_0\n"
      "  steelyard quantize model-f16.gguf out.gguf --type q4_k_m --tensor-type 'blk\\.0\\..*=q8_0'\n"
      "  steelyard quantize model-f16.gguf --type q5_k_m --dry-run\n"
      "  steelyard quantize model-f16.gguf --compare q8_0,q5_k_m,q4_k_m --text book.txt -n 2000");
  auto flags = std::make_shared<Flags>();
  command->add_option("IN", flags->in, "a GGUF file, or a model's name: F32, F16, BF16 or Q8_0")->required();
  command->add_option("OUT", flags->out, "the file to write");
  takes(command->add_option("--type", flags->type, "a mixture such as q4_k_m, or a type such as q8_0"),
        "TYPE", [](const std::string& text) { parse_mixture(text); })
      ->capture_default_str();
  command->add_flag("--pure", flags->pure, "every matrix gets the type itself, the output matrix too");
  takes_several(
      takes(command->add_option(
                "--tensor-type", flags->rules,
                "another type for tensors whose name holds a match; can be repeated, the first counts"),
            "REGEX=TYPE", [](const std::string& text) { parse_type_rule(text); }),
      "REGEX=TYPE");
  command->add_option("--tensor-type-file", flags->rule_file,
                      "a file of such rules, white space between them");
  takes(command->add_option("--output-type", flags->output, "of the output matrix"), "TYPE",
        [](const std::string& text) { named_type(text); });
  takes(command->add_option("--embedding-type", flags->embedding, "of the token embedding"), "TYPE",
        [](const std::string& text) { named_type(text); });
  command->add_flag("--allow-requantize", flags->requantize,
                    "also from types that have lost something already, which adds errors to errors");
  command->add_flag("--dry-run", flags->dry_run, "write nothing; show each tensor's type and size");
  takes(command->add_option(
            "--compare", flags->compare,
            "make each of these types, measure what it costs in accuracy and brings in speed, keep none"),
        "TYPES", [](const std::string& text) { type_names(text); });
  command->add_option("--text", flags->text.file, "with --compare: the text that they are judged by")
      ->type_name("FILE");
  takes_number(command->add_option("-n,--tokens", flags->text.tokens,
                                   "with --compare: the text's first so many tokens"),
               2, 1e9);
  command->add_option("--svg", flags->svg, "with --compare: draw accuracy against size and speed")
      ->type_name("FILE");
  takes_number(command->add_option("-t,--threads", flags->threads, "threads; all cores unless said"), 1,
               1024);
  command->add_flag("--json", flags->json, "print JSON");
  command->callback([&action, flags] { action = [flags] { return quantize(*flags); }; });
}

}  // namespace steelyard
