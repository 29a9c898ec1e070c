// Asks as whom a guest shall let the person in. What is typed stays in the page.
const form = document.getElementById("viewer-account");
const user = document.getElementById("account-user");
const password = document.getElementById("account-password");
const problem = document.getElementById("account-problem");

/** Resolves to {user, password}. `isAgain`: the last ones were not right. */
export function askAccount(isAgain) {
  problem.hidden = !isAgain;
  (user.value ? password : user).focus();
  return new Promise((resolve) => {
    form.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        const given = { user: user.value.trim(), password: password.value };
        password.value = "";
        resolve(given);
      },
      { once: true },
    );
  });
}
