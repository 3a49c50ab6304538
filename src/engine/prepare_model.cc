// Reading a file, and having it placed: what comes before a LoadedModel.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "base/dtype.h"
#include "base/error.h"
#include "device/device.h"
#include "device/devices.h"
#include "device/target.h"
#include "engine/loaded_model.h"
#include "engine/place_model.h"
#include "gguf/gguf.h"
#include "model/config.h"
#include "program/program.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace steelyard {
namespace {

constexpr std::uint32_t kCpuBatch = 512, kGpuBatch = 2048;

void read_text_parts(PreparedModel& m) {
  Vocabulary vocabulary = Vocabulary::from_metadata(m.file->metadata());
  if (vocabulary.kind() == VocabularyKind::none) return;
  // A few more than there are rows are marks for pictures and the like (Gemma 3 as Ollama keeps it): never
  // sampled, since logits are rows too, and refused in a prompt.
  constexpr std::uint32_t kMostWithoutRows = 1024;
  if (static_cast<std::uint32_t>(vocabulary.size()) > m.config.vocab_size + kMostWithoutRows)
    throw_error(ErrorKind::bad_input, "the vocabulary has {} tokens, but token_embd.weight has rows for {}",
                vocabulary.size(), m.config.vocab_size);
  m.tokenizer = std::make_shared<const Tokenizer>(std::move(vocabulary));
  const std::string& source = m.tokenizer->vocabulary().chat_template();
  if (source.empty()) return;
  try {
    m.chat_template = std::make_shared<const ChatTemplate>(source);
  } catch (const Error& e) {
    m.template_error = e.what();
  }
}

void add_notes(PreparedModel& m) {
  if (m.options.context > m.config.context_train)
    m.notes.push_back(fmt::format(
        "a context of {} tokens is more than the {} that the model was trained for: beyond those its "
        "answers get worse",
        m.options.context, m.config.context_train));
  if (m.tokenizer && m.tokenizer->vocabulary().pre_missing())
    m.notes.emplace_back(
        "the file doesn't name its pre-tokenizer (tokenizer.ggml.pre): the default one stands in, and the "
        "tokens "
        "may not be those that the model was trained with");
}

}  // namespace

ModelOptions with_defaults(ModelOptions o, const ModelConfig& config, const Target& target,
                           const Device* device) {
  if (o.context == 0) o.context = std::min(kDefaultContext, config.context_train);
  if (o.mode == Mode::exact) o.kv_type = DType::F32;
  o.threads = device ? device->info().threads : 0;
  o.slots = std::max(1u, o.slots);
  o.outputs = std::max(o.outputs, o.slots);
  const std::uint64_t tokens = std::uint64_t{o.context} * o.slots;
  if (o.batch == 0)
    o.batch =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(target.is_host() ? kCpuBatch : kGpuBatch, tokens));
  o.batch = std::max({o.batch, o.slots, 1u});
  return o;
}

StepLimits limits_of(const ModelOptions& o) {
  return {.rows = o.batch, .outputs = o.outputs, .slots = o.slots, .context = o.context};
}

PreparedModel prepare_model(const std::filesystem::path& path, const ModelOptions& options, Devices& devices,
                            bool even_if_too_big) {
  PreparedModel m;
  m.path = path;
  m.file = std::make_shared<const GgufFile>(GgufFile::open(path));
  m.config = read_config(*m.file);
  read_text_parts(m);
  const std::string why = place_model(m, options, devices);
  if (!why.empty() && !even_if_too_big)
    throw NoRoom(why, m.verdict.device, m.verdict.needed, m.verdict.available);
  add_notes(m);
  return m;
}

PreparedModel prepare_model(const std::filesystem::path& path, const ModelOptions& options,
                            bool even_if_too_big) {
  Devices devices;
  return prepare_model(path, options, devices, even_if_too_big);
}

}  // namespace steelyard
