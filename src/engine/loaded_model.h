// From a file to a model that answers: prepare_model() reads and plans (nothing big is touched), load_model()
// uploads and starts the engine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "decoder/decoder.h"
#include "decoder/step_runner.h"
#include "device/ceilings.h"
#include "device/device.h"
#include "device/devices.h"
#include "device/target.h"
#include "engine/chat.h"
#include "engine/engine.h"
#include "engine/errors.h"
#include "engine/fit_chat.h"
#include "gguf/gguf.h"
#include "model/config.h"
#include "model/forward.h"
#include "observe/ceilings.h"
#include "plan/plan.h"
#include "program/cost.h"
#include "program/program.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace steelyard {

inline constexpr std::uint32_t kDefaultContext = 4096;

struct ModelOptions {
  std::string device = "auto";  // parse_device(); auto: the first GPU on which the model fits, else the CPU
  std::string placement = "auto";        // parse_placement()
  std::vector<DeviceName> devices = {};  // that a placement may use; empty: all
  std::uint64_t paper_bytes = 0;  // not 0: plan for a GPU of so much memory, without touching any device
  std::uint32_t threads = 0;      // of the CPU; 0: one per physical core
  std::uint32_t context = 0;      // tokens a sequence may reach; 0: 4096, at most as trained
  std::uint32_t slots = 1;        // sequences running at once
  std::uint32_t batch = 0;        // tokens a step; 0: 512 on the CPU, 2048 on a GPU
  std::uint32_t outputs = 0;      // rows with results a step; 0: as many as slots
  DType kv_type = DType::F16;     // exact mode: F32
  Mode mode = Mode::fast;
  // Bytes of the model's device that the whole program may take, all its models and, on the CPU, the process
  // included; 0: what is free.
  std::uint64_t memory_limit = 0;
  DeviceBytes memory = {};  // the same of devices by name; goes before memory_limit
  std::uint32_t max_queue = 512;
  bool reuse_prefixes = true;
};

// With what they leave open, for a model on devices of this kind; `device` null: nobody has opened it.
ModelOptions with_defaults(ModelOptions options, const ModelConfig& config, const Target& target,
                           const Device* device);
// Of such options.
StepLimits limits_of(const ModelOptions& options);

// Read, checked and planned, but not loaded.
struct PreparedModel {
  std::filesystem::path path;
  ModelOptions options;  // with defaults filled in
  std::shared_ptr<const GgufFile> file;
  ModelConfig config;
  std::shared_ptr<const Tokenizer> tokenizer;         // null when the file has no vocabulary
  std::shared_ptr<const ChatTemplate> chat_template;  // null when the file has none
  std::string template_error;                         // why the file's template can't be used; then null too
  Forward forward;                                    // all of it
  std::shared_ptr<Device> device;  // null when planned on paper; of several, where the output layer lies
  // Where it lies on several devices, in order: `device` is the last one's. Empty: all on `device`.
  std::vector<PlacedPart> parts;
  // Why device "auto" means the CPU here, one line; and whether a GPU is there and isn't used.
  std::string device_note;
  bool gpu_passed_over = false;
  // Where there was a choice: what was taken, what it is predicted to do, and why not the next best. One
  // line.
  std::string placement_note;
  double predicted_tokens_per_second = 0;  // of one stream; 0: nothing was predicted
  MemoryPlan plan;
  Verdict verdict;                // whether the plan fits
  std::vector<MemoryHold> holds;  // of a plan that fits: it counts from here on
  // What who runs it should know, each a sentence: a context beyond the trained one, a tokenizer that had to
  // be guessed.
  std::vector<std::string> notes;
};

// Throws Error: what file, vocabulary, configuration and options have wrong; no_memory with the smallest
// changes that would make it fit (as NoRoom), unless `even_if_too_big` (for `plan`). Models prepared with one
// `devices` share its devices.
PreparedModel prepare_model(const std::filesystem::path& path, const ModelOptions& options, Devices& devices,
                            bool even_if_too_big = false);
PreparedModel prepare_model(const std::filesystem::path& path, const ModelOptions& options,
                            bool even_if_too_big = false);

// What Decoder::load() takes.
std::vector<PlacedPart> placed_parts(const PreparedModel& model);

class LoadedModel {
 public:
  // Thread-safe through const methods and engine(). `vocabulary`, `config` … stay valid as long as this
  // lives.
  LoadedModel(PreparedModel prepared, const LoadProgress& progress = {});
  // Over another runner, for tests: no decoder, only what `prepared` holds.
  LoadedModel(PreparedModel prepared, std::unique_ptr<StepRunner> runner);
  ~LoadedModel();

  const std::filesystem::path& path() const { return prepared_.path; }
  const ModelOptions& options() const { return prepared_.options; }
  const GgufFile& file() const { return *prepared_.file; }
  const ModelConfig& config() const { return prepared_.config; }
  const MemoryPlan& plan() const { return prepared_.plan; }
  const Program& program() const { return prepared_.forward.program; }
  // Throws Error(unsupported) when the file has no vocabulary.
  const Tokenizer& tokenizer() const;
  const ChatTemplate* chat_template() const { return prepared_.chat_template.get(); }
  const DeviceInfo& device_info() const { return prepared_.device->info(); }
  // A device of it can't run steps any more: every request fails.
  bool device_lost() const;
  const Device& device() const { return *prepared_.device; }
  // Its file was written to, cut or replaced since it was read. What is loaded is a copy, so answers stay
  // right; who asks for the model by name now means the new file.
  bool file_changed() const { return prepared_.file && prepared_.file->changed(); }
  double load_seconds() const { return load_seconds_; }
  // What runs by a slower path on which device, and why; a line each.
  std::vector<std::string> reports() const;
  // How its hidden states become an embedding: as the file's pooling_type says, else by the last token.
  // Throws Error(unsupported) for a way that needs what a decoder doesn't have.
  Pooling pooling() const;
  // How its answers are drawn where a request doesn't say: by its file's own word.
  const AnswerOptions& answer_defaults() const { return answer_defaults_; }
  Engine& engine() const { return *engine_; }
  // For eval and bench, which run steps themselves: not while the engine has requests.
  Decoder& decoder() const { return *decoder_; }

  // Both throw TooLong, before any work, for more text than the context's tokens can hold.
  // Throws Error(bad_input) for a model without a chat template, saying what to use instead.
  std::vector<TokenId> encode_chat(const ChatInput& input) const;
  // The same without the oldest turns where they don't fit; see fit_chat.h. `context` 0: the model's.
  FittedChat fit_chat(const ChatInput& input, std::size_t reserve, std::size_t context = 0) const;
  // `before` (a prompt and its answer) and what follows it; see chat.h.
  std::vector<TokenId> continue_chat(const ChatInput& input, std::vector<TokenId> before) const;
  std::vector<TokenId> continue_text(std::string_view text, std::vector<TokenId> before,
                                     bool special = false) const;
  // A plain prompt. `special`: control tokens spelled out become control tokens (raw mode). BOS stands once.
  std::vector<TokenId> encode_text(std::string_view text, bool special = false) const;

 private:
  void read_ceilings();
  double limit_seconds(const StepShape& shape) const;
  const ChatTemplate& usable_template() const;
  void check_length(std::size_t bytes) const;

  PreparedModel prepared_;  // with its holds, which outlive what they count
  std::unique_ptr<Decoder> decoder_;
  std::vector<Ceilings> ceilings_;  // the engine's thread's, by part; none: the limit isn't known
  std::vector<LimitPart> limit_parts_;
  double load_seconds_ = 0;
  std::unique_ptr<StepRunner> runner_;  // a test's, instead of the decoder
  std::unique_ptr<TokenText> text_;
  std::unique_ptr<Engine> engine_;
  AnswerOptions answer_defaults_;
};

}  // namespace steelyard
