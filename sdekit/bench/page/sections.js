// What this run did not measure needs no heading.
for (const name of data.empty) {
  document.getElementById(name).remove();
  document.querySelector(`nav a[href="#${name}"]`).remove();
}
