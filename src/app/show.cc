// steelyard show
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "app/commands.h"
#include "app/common.h"
#include "app/output.h"
#include "base/dtype.h"
#include "base/error.h"
#include "base/readable.h"
#include "base/units.h"
#include "gguf/gguf.h"
#include "model/config.h"
#include "text/vocabulary.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  std::string model;
  bool metadata = false, tensors = false, chat_template = false, json = false;
};

struct TypeSum {
  std::size_t tensors = 0;
  std::uint64_t elements = 0, bytes = 0;
};

std::map<std::string_view, TypeSum> sum_by_type(const GgufFile& file) {
  std::map<std::string_view, TypeSum> sums;
  for (const GgufTensor& t : file.tensors()) {
    TypeSum& sum = sums[dtype_info(t.type).name];
    ++sum.tensors;
    sum.elements += t.shape.elements();
    sum.bytes += t.bytes;
  }
  return sums;
}

std::uint64_t parameters(const GgufFile& file) {
  std::uint64_t n = 0;
  for (const GgufTensor& t : file.tensors()) n += t.shape.elements();
  return n;
}

// Fields in the order they are shown; what a file doesn't hold is left out.
using Fields = std::vector<std::pair<std::string, std::string>>;

void describe_config(const ModelConfig& c, Fields& fields) {
  fields.emplace_back("layers", fmt::format("{}", c.layers.size()));
  if (c.routing.n_experts > 0)
    fields.emplace_back("experts", fmt::format("{} a layer, {} of them for each token", c.routing.n_experts,
                                               c.routing.n_used));
  fields.emplace_back("embedding", fmt::format("{}", c.n_embd));
  fields.emplace_back("context (trained)", fmt::format("{}", c.context_train));
  fields.emplace_back("vocabulary", fmt::format("{}", c.vocab_size));
  if (c.layers.empty()) return;
  const LayerConfig& first = c.layers.front();
  fields.emplace_back("feed-forward", fmt::format("{}", first.n_ff));
  fields.emplace_back("heads",
                      fmt::format("{} of {}, {} KV heads", first.n_heads, c.head_dim_k, first.n_kv_heads));
  const auto windowed =
      std::count_if(c.layers.begin(), c.layers.end(), [](const auto& l) { return l.window > 0; });
  if (windowed)
    fields.emplace_back(
        "sliding window",
        fmt::format("{} tokens in {} layers",
                    std::max_element(c.layers.begin(), c.layers.end(),
                                     [](const auto& a, const auto& b) { return a.window < b.window; })
                        ->window,
                    windowed));
  fields.emplace_back("output layer", c.tied_embedding ? "the token embedding (tied)" : "its own");
}

// The same as numbers, for programs.
Json config_json(const ModelConfig& c) {
  Json value = {{"architecture", c.architecture}, {"layers", c.layers.size()},
                {"embedding", c.n_embd},          {"context_trained", c.context_train},
                {"vocabulary", c.vocab_size},     {"tied_embedding", c.tied_embedding}};
  if (c.layers.empty()) return value;
  const LayerConfig& first = c.layers.front();
  value["feed_forward"] = first.n_ff;
  value["heads"] = first.n_heads;
  value["kv_heads"] = first.n_kv_heads;
  value["head_size"] = c.head_dim_k;
  if (c.routing.n_experts > 0)
    value["experts"] = c.routing.n_experts, value["experts_used"] = c.routing.n_used;
  value["windows"] = Json::array();  // tokens a layer sees; 0: all
  for (const LayerConfig& layer : c.layers) value["windows"].push_back(layer.window);
  return value;
}

// A file that Steelyard can't run still has a name, a size and tensors to show; `problem` says what it can't.
Fields describe(const GgufFile& file, std::string& problem) {
  const GgufMetadata& m = file.metadata();
  Fields fields;
  if (const auto name = m.find_string("general.name")) fields.emplace_back("name", *name);
  if (const auto arch = m.find_string("general.architecture")) fields.emplace_back("architecture", *arch);
  fields.emplace_back("parameters", count_text(parameters(file)));
  fields.emplace_back("size", size_text(file.total_bytes()));
  try {
    if (!file.tensors().empty()) describe_config(read_config(file), fields);
  } catch (const Error& e) {
    problem = e.what();
  }
  try {
    const Vocabulary v = Vocabulary::from_metadata(m);
    static constexpr std::string_view kKinds[] = {"none", "SPM", "BPE"};
    std::string kind(kKinds[static_cast<int>(v.kind())]);
    if (v.kind() == VocabularyKind::bpe) kind += ", pre-tokenizer " + v.pre();
    fields.emplace_back("tokenizer", fmt::format("{}, {} tokens", kind, v.size()));
    std::vector<std::string> notes = v.notes();
    if (v.pre_missing()) notes.emplace_back("tokenizer.ggml.pre is missing: the default one stands in");
    if (!notes.empty()) fields.emplace_back("notes", fmt::format("{}", fmt::join(notes, "; ")));
    fields.emplace_back("chat template", v.chat_template().empty() ? "none" : "yes (--template prints it)");
  } catch (const Error& e) {
    if (problem.empty()) problem = e.what();
  }
  if (const auto license = m.find_string("general.license")) fields.emplace_back("license", *license);
  return fields;
}

void print_tensors(const GgufFile& file) {
  std::size_t width = 4;
  for (const GgufTensor& t : file.tensors()) width = std::max(width, readable(t.name).size());
  for (const GgufTensor& t : file.tensors())
    print("{:<{}}  {:<7} {:>10}  {}\n", readable(t.name), width, dtype_info(t.type).name, size_text(t.bytes),
          to_string(t.shape));
}

void print_overview(const GgufFile& file) {
  std::string problem;
  for (const auto& [name, value] : describe(file, problem)) print("{:<18} {}\n", name, readable(value, 500));
  print("\n{:<8} {:>8} {:>12} {:>12}\n", "TYPE", "TENSORS", "PARAMETERS", "BYTES");
  for (const auto& [type, sum] : sum_by_type(file))
    print("{:<8} {:>8} {:>12} {:>12}\n", type, sum.tensors, count_text(sum.elements), size_text(sum.bytes));
  if (!problem.empty()) note("note: this file can be shown but not run: {}", problem);
}

void show_json(const GgufFile& file) {
  std::string problem;
  Json value;
  for (const auto& [name, text] : describe(file, problem)) value["overview"][name] = text;
  if (problem.empty() && !file.tensors().empty()) value["config"] = config_json(read_config(file));
  value["parameters"] = parameters(file);
  value["bytes"] = file.total_bytes();
  for (const auto& [type, sum] : sum_by_type(file))
    value["types"][std::string(type)] = {
        {"tensors", sum.tensors}, {"parameters", sum.elements}, {"bytes", sum.bytes}};
  for (const GgufEntry& e : file.metadata().entries())
    value["metadata"][std::string(e.key())] = e.printable(200);
  value["tensors"] = Json::array();
  for (const GgufTensor& t : file.tensors()) {
    Json shape = Json::array();
    for (std::uint32_t i = 0; i < t.shape.n_dims; ++i) shape.push_back(t.shape[i]);
    value["tensors"].push_back({{"name", t.name},
                                {"type", dtype_info(t.type).name},
                                {"shape", std::move(shape)},
                                {"bytes", t.bytes}});
  }
  if (const auto text = file.metadata().find_string("tokenizer.chat_template")) value["template"] = *text;
  if (!problem.empty()) value["problem"] = problem;
  print_json(value);
}

int show(const Flags& flags) {
  const GgufFile file = GgufFile::open(resolve_model(flags.model));
  if (flags.json) {
    show_json(file);
  } else if (flags.chat_template) {
    const auto text = file.metadata().find_string("tokenizer.chat_template");
    if (!text) throw_error(ErrorKind::not_found, "{} has no chat template", flags.model);
    write_stdout(*text);
  } else if (flags.metadata || flags.tensors) {
    if (flags.metadata)
      for (const GgufEntry& e : file.metadata().entries())
        print("{:<44} {:<8} {}\n", readable(e.key()), gguf_type_name(e.type()), e.printable(80));
    if (flags.tensors) print_tensors(file);
  } else {
    print_overview(file);
  }
  return 0;
}

}  // namespace

void add_show(CLI::App& app, Action& action) {
  auto* command = add_command(app, "show", "show a model's configuration, tensors by type and template",
                              "  steelyard show smollm2\n"
                              "  steelyard show model.gguf --tensors\n"
                              "  steelyard show smollm2 --template > chat.jinja");
  auto flags = std::make_shared<Flags>();
  add_model_argument(*command, flags->model);
  command->add_flag("--metadata", flags->metadata, "every key of the file");
  command->add_flag("--tensors", flags->tensors, "every tensor: type, size, shape (fastest dimension first)");
  command->add_flag("--template", flags->chat_template, "the chat template as it is");
  command->add_flag("--json", flags->json, "all of that as JSON");
  command->callback([&action, flags] { action = [flags] { return show(*flags); }; });
}

}  // namespace steelyard
