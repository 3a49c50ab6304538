#include "engine/loaded_model.h"

#include <algorithm>

#include "base/error.h"
#include "base/process.h"

namespace strata {
namespace {

constexpr std::uint32_t kDefaultContext = 4096;

class TokenizerText final : public TokenText {
 public:
  explicit TokenizerText(std::shared_ptr<const Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {}
  std::string_view piece(TokenId id) const override {
    return tokenizer_ ? tokenizer_->piece(id) : std::string_view();
  }
  bool is_end(TokenId id) const override { return tokenizer_ && tokenizer_->is_end(id); }

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
};

void read_text_parts(PreparedModel& m) {
  Vocabulary vocabulary = Vocabulary::from_metadata(m.file->metadata());
  if (vocabulary.kind() == VocabularyKind::none) return;
  if (static_cast<std::uint32_t>(vocabulary.size()) > m.config.vocab_size)
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

void fill_defaults(ModelOptions& o, const ModelConfig& config, const Device& device) {
  if (o.context == 0) o.context = std::min(kDefaultContext, config.context_train);
  if (o.mode == Mode::exact) o.kv_type = DType::F32;
  o.threads = device.info().threads;
  o.slots = std::max(1u, o.slots);
  o.outputs = std::max(o.outputs, o.slots);
  o.batch = std::max({o.batch, o.slots, 1u});
}

}  // namespace

PreparedModel prepare_model(const std::filesystem::path& path, const ModelOptions& options,
                            bool even_if_too_big) {
  PreparedModel m;
  m.path = path;
  m.options = options;
  m.file = std::make_shared<const GgufFile>(GgufFile::open(path));
  m.config = read_config(*m.file);
  read_text_parts(m);
  m.device = make_cpu_device({.threads = options.threads, .memory_limit = options.memory_limit});
  fill_defaults(m.options, m.config, *m.device);
  const ModelOptions& o = m.options;
  m.forward = write_forward(*m.file, m.config, {.kv_type = o.kv_type, .context = o.context});
  const std::uint64_t process = resident_bytes();
  const PlanInput input{
      .config = &m.config,
      .program = &m.forward.program,
      .target = &m.device->target(),
      .device = m.device->info().id,
      .limits = {.rows = o.batch, .outputs = o.outputs, .slots = o.slots, .context = o.context},
      .mode = o.mode,
      .kv_type = o.kv_type,
      .threads = o.threads,
      .process_bytes = process};
  m.plan = plan_memory(input);
  // The process's own bytes are no longer free, but already there. A limit counts what is loaded.
  const std::string why = why_not(input, m.device->memory().free + process);
  if (!why.empty() && !even_if_too_big) throw Error(ErrorKind::no_memory, why);
  return m;
}

LoadedModel::LoadedModel(PreparedModel prepared, const LoadProgress& progress)
    : prepared_(std::move(prepared)) {
  // The program is kept here too: for shapes and costs, while the decoder runs its own.
  decoder_ = Decoder::load(prepared_.file, prepared_.forward, prepared_.plan, prepared_.device, progress);
  load_seconds_ = decoder_->load_seconds();
  const DeviceInfo& device = prepared_.device->info();
  try {
    ceilings_ = load_ceilings(ceilings_path(device.name, device.threads));
  } catch (const Error&) {
    ceilings_.reset();  // unknown, as on a machine that was never probed
  }
  runner_ = make_decoder_runner(*decoder_);
  text_ = std::make_unique<TokenizerText>(prepared_.tokenizer);
  EngineOptions options{.max_queue = prepared_.options.max_queue,
                        .reuse_prefixes = prepared_.options.reuse_prefixes};
  if (ceilings_)
    options.step_limit = [this](const StepShape& shape) {
      return step_limit(program(), shape, *ceilings_).seconds();
    };
  engine_ = std::make_unique<Engine>(*runner_, *text_, std::move(options));
}

LoadedModel::LoadedModel(PreparedModel prepared, std::unique_ptr<StepRunner> runner)
    : prepared_(std::move(prepared)),
      runner_(std::move(runner)),
      text_(std::make_unique<TokenizerText>(prepared_.tokenizer)) {
  engine_ =
      std::make_unique<Engine>(*runner_, *text_, EngineOptions{.max_queue = prepared_.options.max_queue});
}

LoadedModel::~LoadedModel() = default;

const Tokenizer& LoadedModel::tokenizer() const {
  if (!prepared_.tokenizer)
    throw_error(ErrorKind::unsupported, "{} has no vocabulary, so it can't read or write text",
                prepared_.path.filename().string());
  return *prepared_.tokenizer;
}

std::vector<TokenId> LoadedModel::encode_chat(const ChatInput& input) const {
  const Tokenizer& tokens = tokenizer();
  if (!prepared_.chat_template)
    throw_error(
        ErrorKind::bad_input, "{} has no chat template{}; give it a plain prompt to complete",
        prepared_.path.filename().string(),
        prepared_.template_error.empty() ? "" : " that can be used (" + prepared_.template_error + ")");
  return strata::encode_chat(*prepared_.chat_template, input, tokens);
}

std::vector<TokenId> LoadedModel::encode_text(std::string_view text, bool special) const {
  return tokenizer().encode(text, {.add_special = true, .parse_special = special});
}

}  // namespace strata
