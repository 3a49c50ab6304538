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

class TokenizerText final : public TokenText {
 public:
  explicit TokenizerText(std::shared_ptr<const Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {}
  std::string_view piece(TokenId id, bool control) const override {
    return tokenizer_ ? tokenizer_->piece(id, control) : std::string_view();
  }
  bool is_end(TokenId id) const override { return tokenizer_ && tokenizer_->is_end(id); }

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace

std::vector<PlacedPart> placed_parts(const PreparedModel& model) {
  if (!model.parts.empty()) return model.parts;
  return {{model.forward, model.device}};
}

LoadedModel::LoadedModel(PreparedModel prepared, const LoadProgress& progress)
    : prepared_(std::move(prepared)) {
  // The program is kept here too: for shapes and costs, while the decoder runs its own.
  decoder_ = Decoder::load(prepared_.file, placed_parts(prepared_), prepared_.plan, progress);
  load_seconds_ = decoder_->load_seconds();
  for (MemoryHold& hold : prepared_.holds) hold.settle();
  read_ceilings();
  text_ = std::make_unique<TokenizerText>(prepared_.tokenizer);
  if (prepared_.file) answer_defaults_ = file_answer_options(prepared_.file->metadata());
  EngineOptions options{.max_queue = prepared_.options.max_queue,
                        .reuse_prefixes = prepared_.options.reuse_prefixes};
  if (!ceilings_.empty())
    options.step_limit = [this](const StepShape& shape) { return limit_seconds(shape); };
  if (ceilings_.size() == 1)
    options.limit_beaten = [this](const StepShape& shape, double factor) {
      raise_ceilings(ceilings_[0], step_limit(program(), shape, ceilings_[0]), factor);
      try {
        const auto path = ceilings_path(prepared_.device->info());
        const auto kept = load_ceilings(path);
        save_ceilings(kept ? best_of(*kept, ceilings_[0]) : ceilings_[0], path);
      } catch (const Error&) {  // this process knows, at least
      }
    };
  engine_ = std::make_unique<Engine>(*decoder_, *text_, std::move(options));
}

// Unknown where a device was never probed; and of stages that several streams take in turn, since which steps
// overlap isn't known of one.
void LoadedModel::read_ceilings() {
  const bool turns = decoder_->info().stages > 1 && prepared_.plan.limits.slots > 1;
  try {
    for (std::size_t i = 0; i < decoder_->n_parts() && !turns; ++i) {
      const auto kept = load_ceilings(ceilings_path(decoder_->device(i).info()));
      if (!kept) break;
      ceilings_.push_back(*kept);
    }
  } catch (const Error&) {
  }
  if (ceilings_.size() != decoder_->n_parts()) ceilings_.clear();
  for (std::size_t i = 0; i < ceilings_.size(); ++i)
    limit_parts_.push_back({&decoder_->program(i), &ceilings_[i]});
}

double LoadedModel::limit_seconds(const StepShape& shape) const {
  if (ceilings_.size() == 1) return step_limit(program(), shape, ceilings_[0]).seconds();
  return stage_limits(limit_parts_, shape).all;
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

Pooling LoadedModel::pooling() const {
  enum : std::uint64_t { none = 0, mean = 1, last = 3, rank = 4 };  // GGUF's numbers; 2: the first token
  const std::string key = prepared_.config.architecture + ".pooling_type";
  const std::uint64_t type = prepared_.file ? prepared_.file->metadata().find_uint(key).value_or(last) : last;
  if (type == mean) return Pooling::mean;
  if (type == none || type == last) return Pooling::last;
  throw_error(ErrorKind::unsupported, "{} wants {} (pooling_type {}): that isn't supported",
              prepared_.path.filename().string(),
              type == rank ? "a reranker's head" : "the first token's embedding", type);
}

std::vector<std::string> LoadedModel::reports() const {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < decoder_->n_parts(); ++i)
    if (const std::string report = decoder_->executable(i).report(); !report.empty())
      lines.push_back(fmt::format("{}: {}", decoder_->device(i).info().id, report));
  return lines;
}

bool LoadedModel::device_lost() const {
  if (decoder_ && decoder_->failed()) return true;
  const auto lost = [](const PlacedPart& part) { return part.device->lost(); };
  return (prepared_.device && prepared_.device->lost()) || std::ranges::any_of(prepared_.parts, lost);
}

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
