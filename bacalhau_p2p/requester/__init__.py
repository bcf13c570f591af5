"""The component that takes jobs from users and sees them through."""
