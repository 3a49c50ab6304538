// steelyard pull
#include <unistd.h>

#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>

#include "app/command_line.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/interrupt.h"
#include "app/output.h"
#include "app/progress.h"
#include "app/steps.h"
#include "base/error.h"
#include "store/pull.h"
#include "store/store.h"
#include "store/store_folder.h"

namespace steelyard {
namespace {

// Steps on stderr: a bar for each blob, a line for everything else.
class StepView {
 public:
  void show(const StepProgress& step) {
    if (!step.digest.empty()) return bar(step);
    bar_.reset();
    digest_.clear();
    note("{}", step.status);
  }

 private:
  void bar(const StepProgress& step) {
    if (step.digest != digest_) {
      bar_ = std::make_unique<Progress>(step.status);
      digest_ = step.digest;
    }
    bar_->update(step.done, step.total);
  }

  std::unique_ptr<Progress> bar_;
  std::string digest_;
};

}  // namespace

int follow_steps(const std::function<void(const OnStep& on_step, const std::stop_token& stop)>& work) {
  const InterruptScope scope(true);
  std::stop_source stop;
  std::jthread watch([&stop](const std::stop_token& over) {
    while (!over.stop_requested() && !stop.stop_requested()) {
      if (InterruptScope::interrupted()) stop.request_stop();
      ::usleep(50'000);
    }
  });
  StepView view;
  work([&](const StepProgress& step) { view.show(step); }, stop.get_token());
  return 0;
}

void add_pull(CLI::App& app, Action& action) {
  auto* command = add_command(app, "pull", "fetch a model from Ollama's registry or Hugging Face",
                              "  steelyard pull llama3.2:1b\n"
                              "  steelyard pull hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M\n"
                              "  steelyard pull localhost:5000/library/mine");
  auto name = std::make_shared<std::string>();
  auto options = std::make_shared<PullOptions>();
  command
      ->add_option("MODEL", *name,
                   "[HOST/][NAMESPACE/]MODEL[:TAG]; what was fetched before is taken up again")
      ->required();
  command->add_flag("--insecure", options->insecure,
                    "by http; this machine's own registries are in any case");
  takes_number(command->add_option("--connections", options->connections, "parts that are fetched at once"),
               1, 64)
      ->capture_default_str();
  command->callback([&action, name, options] {
    action = [name, options] {
      const StoreFolder folder = ModelStore::from_environment().own();
      return follow_steps([&](const OnStep& on_step, const std::stop_token& stop) {
        pull_model(folder, *name, *options, on_step, stop);
      });
    };
  });
}

}  // namespace steelyard
