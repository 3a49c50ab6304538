// A conversation with a loaded model: parameters, history, and one answer at a time, streamed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "device/step.h"
#include "engine/engine.h"
#include "engine/loaded_model.h"
#include "engine/sampling_options.h"
#include "text/vocabulary.h"

namespace steelyard {

// What a user may set for the answers to come.
struct AnswerSettings : AnswerOptions {
  // By Ollama's names (temperature, top_k, num_predict, stop …). Throws Error(bad_input) for an unknown name
  // or a value that makes no sense. "stop" adds one.
  void set(std::string_view name, const std::string& value);
  // Every setting as "name value".
  std::vector<std::string> list() const;
};

class ChatSession {
 public:
  // The model must outlive the session. `raw`: prompts are completed as they are, without a template.
  ChatSession(LoadedModel& model, AnswerSettings settings, bool raw);

  AnswerSettings& settings() { return settings_; }
  LoadedModel& model() { return model_; }
  bool raw() const { return raw_; }

  // Empty: none. Takes the place of the present one, from the next answer on.
  void set_system(const std::string& text);
  const std::string& system() const { return system_; }
  void clear() { turns_.clear(); }

  using OnText = std::function<void(std::string_view text)>;
  struct Reply {
    std::string text;
    Answer answer;
  };
  // Streams the answer to `on_text` on this thread. Ctrl-C under an InterruptScope ends it early
  // (DoneReason::cancelled), keeping what was said; an exception of on_text cancels it. A turn that failed
  // leaves the history as it was. Throws Error when the prompt is too long or the answer fails.
  Reply ask(const std::string& prompt, const OnText& on_text);

 private:
  std::vector<TokenId> encode(const std::string& prompt) const;

  LoadedModel& model_;
  AnswerSettings settings_;
  bool raw_;
  std::string system_;
  nlohmann::ordered_json turns_ = nlohmann::ordered_json::array();
};

// What an answer took, for people (one line each) and programs. `load_seconds` < 0: not said.
std::string timings_text(const Answer& answer, double load_seconds);
nlohmann::ordered_json timings_json(const Answer& answer, double load_seconds);

}  // namespace steelyard
