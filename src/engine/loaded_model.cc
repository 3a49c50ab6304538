#include "engine/loaded_model.h"

#include <algorithm>

#include "base/error.h"
#include "base/process.h"
#include "decoder/step_runner.h"
#include "device/target.h"
#include "engine/answer_defaults.h"
#include "program/cost.h"

namespace steelyard {
namespace {

constexpr std::uint32_t kCpuBatch = 512, kGpuBatch = 2048;

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

void fill_defaults(ModelOptions& o, const ModelConfig& config, const Target& target, const Device* device) {
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
}

// Plans for a device (nullptr: on paper). Returns why the model doesn't fit there, or nothing.
std::string plan_for(PreparedModel& m, const ModelOptions& options, HeldMemory& held,
                     std::shared_ptr<Device> device) {
  const Target& target = device ? device->target() : cuda_target();
  m.options = options;
  fill_defaults(m.options, m.config, target, device.get());
  const ModelOptions& o = m.options;
  m.forward = write_forward(*m.file, m.config, {.kv_type = o.kv_type, .context = o.context});
  const std::string id = device ? device->info().id : "CUDA0";
  const std::uint64_t resident = resident_bytes();
  const std::uint64_t context = device ? device->info().context_bytes : 0;
  const PlanInput input{
      .config = &m.config,
      .program = &m.forward.program,
      .target = &target,
      .device = id,
      .limits = {.rows = o.batch, .outputs = o.outputs, .slots = o.slots, .context = o.context},
      .mode = o.mode,
      .kv_type = o.kv_type,
      .threads = o.threads,
      .process_bytes = held.process_bytes(resident),
      .other_models_bytes = device ? held.on(id) : 0,
      .other_models_host_bytes = held.on("CPU"),
      .context_bytes = context,
      .paper = !device};
  m.plan = plan_memory(input);
  // What is planned but there already is no longer free.
  const std::uint64_t taken = target.is_host() ? resident : context + input.other_models_bytes;
  const std::uint64_t room = device ? room_for(device->memory().free, taken, o.memory_limit) : o.paper_bytes;
  m.device = std::move(device);
  m.verdict = judge(input, room);
  return m.verdict.why_not;
}

// The first GPU on which the model fits. False: none, and the note says why.
bool plan_for_any_gpu(PreparedModel& m, const ModelOptions& options, Devices& devices) {
  const CudaDevices found = find_cuda_devices();
  m.device_note = found.why;
  for (std::uint32_t i = 0; i < found.count; ++i) {
    std::string why;
    try {
      why = plan_for(m, options, *devices.held(), devices.cuda(i));
    } catch (const Error& e) {
      why = e.what();
    }
    if (why.empty()) {
      m.device_note.clear();
      return true;
    }
    m.gpu_passed_over = true;
    if (m.device_note.empty()) m.device_note = fmt::format("CUDA{} isn't used: {}", i, why);
  }
  return false;
}

// Plans, and holds what the plan takes where it fits. Returns why it doesn't, or nothing.
std::string choose_device(PreparedModel& m, DeviceName wanted, const ModelOptions& options,
                          Devices& devices) {
  const auto planning = devices.held()->planning();
  std::string why;
  if (options.paper_bytes) {
    why = plan_for(m, options, *devices.held(), nullptr);
  } else if (wanted.kind == DeviceName::Kind::cuda) {
    why = plan_for(m, options, *devices.held(), devices.cuda(wanted.index));
  } else if (wanted.kind == DeviceName::Kind::cpu || !plan_for_any_gpu(m, options, devices)) {
    why = plan_for(m, options, *devices.held(),
                   devices.cpu({.threads = options.threads, .memory_limit = options.memory_limit}));
  }
  if (why.empty() && !options.paper_bytes)
    for (const DevicePlan& d : m.plan.devices)
      m.holds.emplace_back(devices.held(), d.device, d.model_bytes());
  return why;
}

}  // namespace

PreparedModel prepare_model(const std::filesystem::path& path, const ModelOptions& options, Devices& devices,
                            bool even_if_too_big) {
  const DeviceName wanted = parse_device(options.device);
  PreparedModel m;
  m.path = path;
  m.file = std::make_shared<const GgufFile>(GgufFile::open(path));
  m.config = read_config(*m.file);
  read_text_parts(m);
  const std::string why = choose_device(m, wanted, options, devices);
  if (!why.empty() && !even_if_too_big)
    throw NoRoom(why, m.plan.devices[0].device, m.verdict.needed, m.verdict.available);
  add_notes(m);
  return m;
}

PreparedModel prepare_model(const std::filesystem::path& path, const ModelOptions& options,
                            bool even_if_too_big) {
  Devices devices;
  return prepare_model(path, options, devices, even_if_too_big);
}

LoadedModel::LoadedModel(PreparedModel prepared, const LoadProgress& progress)
    : prepared_(std::move(prepared)) {
  // The program is kept here too: for shapes and costs, while the decoder runs its own.
  decoder_ = Decoder::load(prepared_.file, prepared_.forward, prepared_.plan, prepared_.device, progress);
  load_seconds_ = decoder_->load_seconds();
  for (MemoryHold& hold : prepared_.holds) hold.settle();
  try {
    ceilings_ = load_ceilings(ceilings_path(prepared_.device->info()));
  } catch (const Error&) {
    ceilings_.reset();  // unknown, as on a machine that was never probed
  }
  text_ = std::make_unique<TokenizerText>(prepared_.tokenizer);
  if (prepared_.file) answer_defaults_ = file_answer_options(prepared_.file->metadata());
  EngineOptions options{.max_queue = prepared_.options.max_queue,
                        .reuse_prefixes = prepared_.options.reuse_prefixes};
  if (ceilings_)
    options.step_limit = [this](const StepShape& shape) {
      return step_limit(program(), shape, *ceilings_).seconds();
    };
  if (ceilings_)
    options.limit_beaten = [this](const StepShape& shape, double factor) {
      raise_ceilings(*ceilings_, step_limit(program(), shape, *ceilings_), factor);
      try {
        const auto path = ceilings_path(prepared_.device->info());
        const auto kept = load_ceilings(path);
        save_ceilings(kept ? best_of(*kept, *ceilings_) : *ceilings_, path);
      } catch (const Error&) {  // this process knows, at least
      }
    };
  engine_ = std::make_unique<Engine>(*decoder_, *text_, std::move(options));
}

LoadedModel::LoadedModel(PreparedModel prepared, std::unique_ptr<StepRunner> runner)
    : prepared_(std::move(prepared)),
      runner_(std::move(runner)),
      text_(std::make_unique<TokenizerText>(prepared_.tokenizer)) {
  if (prepared_.file) answer_defaults_ = file_answer_options(prepared_.file->metadata());
  engine_ =
      std::make_unique<Engine>(*runner_, *text_, EngineOptions{.max_queue = prepared_.options.max_queue});
}

LoadedModel::~LoadedModel() = default;

// No token stands for more bytes than its own, so so much text can't be few enough tokens. Spaces at the
// ends, which a template may take off, count: nobody needs megabytes of them.
void LoadedModel::check_length(std::size_t bytes) const {
  if (!prepared_.tokenizer) return;  // said by tokenizer()
  const std::size_t most = engine_->context() * prepared_.tokenizer->longest_token();
  if (bytes > most)
    throw TooLong(
        fmt::format("the prompt has {} bytes, but the context's {} tokens can hold {} at most: shorten it or "
                    "use a larger "
                    "context",
                    bytes, engine_->context(), most));
}

const Tokenizer& LoadedModel::tokenizer() const {
  if (!prepared_.tokenizer)
    throw_error(ErrorKind::unsupported, "{} has no vocabulary, so it can't read or write text",
                prepared_.path.filename().string());
  return *prepared_.tokenizer;
}

namespace {

std::size_t text_bytes(const nlohmann::ordered_json& value) {
  if (value.is_string()) return value.get_ref<const std::string&>().size();
  std::size_t bytes = 0;
  if (value.is_structured())
    for (const auto& item : value) bytes += text_bytes(item);
  return bytes;
}

}  // namespace

const ChatTemplate& LoadedModel::usable_template() const {
  tokenizer();
  if (!prepared_.chat_template)
    throw_error(
        ErrorKind::bad_input, "{} has no chat template{}; give it a plain prompt to complete",
        prepared_.path.filename().string(),
        prepared_.template_error.empty() ? "" : " that can be used (" + prepared_.template_error + ")");
  return *prepared_.chat_template;
}

std::vector<TokenId> LoadedModel::encode_chat(const ChatInput& input) const {
  check_length(text_bytes(input.messages));
  return steelyard::encode_chat(usable_template(), input, tokenizer());
}

FittedChat LoadedModel::fit_chat(const ChatInput& input, std::size_t reserve, std::size_t context) const {
  const std::size_t most = engine_->context();
  return steelyard::fit_chat(usable_template(), input, tokenizer(), context ? std::min(context, most) : most,
                             reserve);
}

std::vector<TokenId> LoadedModel::continue_chat(const ChatInput& input, std::vector<TokenId> before) const {
  check_length(text_bytes(input.messages));
  return steelyard::continue_chat(usable_template(), input, std::move(before), tokenizer());
}

std::vector<TokenId> LoadedModel::continue_text(std::string_view text, std::vector<TokenId> before,
                                                bool special) const {
  check_length(text.size());
  const auto ids = tokenizer().encode(text, {.add_special = before.empty(), .parse_special = special});
  before.insert(before.end(), ids.begin(), ids.end());
  return before;
}

std::vector<TokenId> LoadedModel::encode_text(std::string_view text, bool special) const {
  check_length(text.size());
  std::vector<TokenId> ids = tokenizer().encode(text, {.add_special = true, .parse_special = special});
  const TokenId bos = tokenizer().bos();
  if (special && bos != kNoToken && ids.size() > 1 && ids[0] == bos && ids[1] == bos) ids.erase(ids.begin());
  return ids;
}

}  // namespace steelyard
