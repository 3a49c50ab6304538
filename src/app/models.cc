// steelyard rm, steelyard cp
#include <memory>
#include <string>
#include <vector>

#include "app/commands.h"
#include "app/common.h"
#include "store/store.h"

namespace steelyard {

void add_rm(CLI::App& app, Action& action) {
  auto* command = add_command(app, "rm", "remove models that were pulled or made",
                              "  steelyard rm llama3.2:1b\n"
                              "  steelyard rm hf.co/org/repo:Q4_K_M mine");
  auto models = std::make_shared<std::vector<std::string>>();
  command
      ->add_option("MODEL", *models,
                   "a model's whole name; what others are made of too stays, and plain files aren't touched")
      ->required()
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->callback([&action, models] {
    action = [models] {
      const ModelStore store = ModelStore::from_environment();
      for (const std::string& name : *models) store.remove(name);
      return 0;
    };
  });
}

void add_cp(CLI::App& app, Action& action) {
  auto* command = add_command(app, "cp", "give a model that was pulled or made a second name",
                              "  steelyard cp llama3.2:1b mine");
  auto from = std::make_shared<std::string>(), to = std::make_shared<std::string>();
  command->add_option("SOURCE", *from, "a model's whole name")->required();
  command->add_option("DESTINATION", *to, "the second name, which takes the place of a model that has it")
      ->required();
  command->callback([&action, from, to] {
    action = [from, to] {
      ModelStore::from_environment().copy(*from, *to);
      return 0;
    };
  });
}

}  // namespace steelyard
